//! The password file of libpq: `host:port:database:user:password` a line, `*` matches all.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a connection goes, as the file names it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
}

/// Returns the file's path: `PGPASSFILE`, else in the home folder.
pub(super) fn path(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("PGPASSFILE") {
        return Some(PathBuf::from(path));
    }
    if cfg!(windows) {
        Some(Path::new(&variable("APPDATA")?).join("postgresql").join("pgpass.conf"))
    } else {
        Some(Path::new(&variable("HOME")?).join(".pgpass"))
    }
}

/// Looks the password up. A file that others may read is ignored, as libpq does.
pub(super) fn look_up(path: &Path, target: &Target) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.permissions().mode() & 0o077 != 0 {
            return None;
        }
    }
    if !metadata.is_file() {
        return None;
    }
    find(&fs::read_to_string(path).ok()?, target)
}

fn find(text: &str, target: &Target) -> Option<String> {
    let port = target.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line).into_iter();
        let mut matches = |wanted: &str| fields.next().is_some_and(|field| field.is_match(wanted));
        // libpq writes a Unix socket as localhost.
        let host = if target.host.starts_with('/') { "localhost" } else { &target.host };
        let all = matches(host) && matches(&port) && matches(&target.database) && matches(&target.user);
        fields.next().filter(|_| all).map(|field| field.text)
    })
}

struct Field {
    text: String,
    star: bool,
}

impl Field {
    fn is_match(&self, wanted: &str) -> bool {
        self.star || self.text == wanted
    }
}

fn fields(line: &str) -> Vec<Field> {
    let mut all = Vec::new();
    let mut rest = line.chars();
    let mut text = String::new();
    let mut escaped = false;
    loop {
        match rest.next() {
            Some('\\') => {
                escaped = true;
                text.extend(rest.next());
            }
            // The password is the rest of the line, colons included only where escaped.
            Some(':') | None if all.len() < 5 => {
                let star = !escaped && text == "*" && all.len() < 4;
                all.push(Field { text: std::mem::take(&mut text), star });
                escaped = false;
                if all.len() == 5 {
                    return all;
                }
                if rest.as_str().is_empty() {
                    return all;
                }
            }
            Some(c) => text.push(c),
            None => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { host: "db".into(), port: 5432, database: "shop".into(), user: "ann".into() }
    }

    #[test]
    fn the_first_line_that_matches_wins() {
        let file = "# c\nother:*:*:*:no\ndb:5432:shop:bob:no\ndb:*:shop:ann:p\\:w\\\\\n*:*:*:*:late\n";
        assert_eq!(find(file, &target()).as_deref(), Some("p:w\\"));
        assert_eq!(find("*:*:*:*:any", &target()).as_deref(), Some("any"));
        assert_eq!(find("\\*:*:*:*:any", &target()), None);
        assert_eq!(find("db:5432:shop", &target()), None);
        let socket = Target { host: "/run/pg".into(), ..target() };
        assert_eq!(find("localhost:5432:shop:ann:sock", &socket).as_deref(), Some("sock"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        use std::io::Write as _;
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        fs::File::create(&path).unwrap().write_all(b"*:*:*:*:any\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(look_up(&path, &target()), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(look_up(&path, &target()).as_deref(), Some("any"));
    }
}
