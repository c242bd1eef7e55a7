//! Which packages are for which machines.

use super::package_json::PackageJson;

/// The machine that a tree is for, in Node's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `process.platform`: `linux`, `darwin`, `win32` …
    pub os: String,
    /// `process.arch`: `x64`, `arm64` …
    pub cpu: String,
    /// `glibc` or `musl`; `None` where that means nothing.
    pub libc: Option<String>,
}

impl Host {
    /// The machine that this library was built for.
    #[must_use]
    pub fn current() -> Self {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            "windows" => "win32",
            other => other,
        };
        let cpu = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "x86" => "ia32",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        let libc = match () {
            () if os != "linux" => None,
            () if cfg!(target_env = "musl") => Some("musl".to_owned()),
            () => Some("glibc".to_owned()),
        };
        Self { os: os.to_owned(), cpu: cpu.to_owned(), libc }
    }

    /// Tells whether a package is for this machine, by its `os`, `cpu` and `libc`.
    #[must_use]
    pub fn accepts(&self, package: &PackageJson) -> bool {
        allows(&package.os, Some(&self.os))
            && allows(&package.cpu, Some(&self.cpu))
            && allows(&package.libc, self.libc.as_deref())
    }
}

/// npm's rule: nothing that is there as `!value`, and, if something is there without `!`, one of those or `any`.
fn allows(list: &[String], value: Option<&str>) -> bool {
    if list.is_empty() || matches!(list, [one] if one == "any") {
        return true;
    }
    let Some(value) = value else { return false };
    let mut named = list.iter().filter(|one| !one.starts_with('!')).peekable();
    let refused = list.iter().filter_map(|one| one.strip_prefix('!')).any(|one| one == value);
    !refused && (named.peek().is_none() || named.any(|one| one == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_npm_reads_them() {
        let check = |list: &[&str], value| allows(&list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>(), value);
        for (list, value, expected) in [
            (&[][..], Some("linux"), true),
            (&["any"], Some("linux"), true),
            (&["linux", "darwin"], Some("darwin"), true),
            (&["linux"], Some("darwin"), false),
            (&["!win32"], Some("linux"), true),
            (&["!win32"], Some("win32"), false),
            (&["linux", "!linux"], Some("linux"), false),
            (&["!win32", "linux"], Some("darwin"), false),
            (&["glibc"], None, false),
            (&[], None, true),
        ] {
            assert_eq!(check(list, value), expected, "{list:?} {value:?}");
        }
    }

    #[test]
    fn all_three_count() {
        let host = Host { os: "linux".into(), cpu: "x64".into(), libc: Some("glibc".into()) };
        let package = |text: &str| PackageJson::parse(text, &|_| false).expect("an object");
        assert!(host.accepts(&package("{}")));
        assert!(host.accepts(&package(r#"{"os":["linux"],"cpu":["x64"],"libc":["glibc"]}"#)));
        for text in [r#"{"os":["darwin"]}"#, r#"{"cpu":["arm64"]}"#, r#"{"libc":["musl"]}"#] {
            assert!(!host.accepts(&package(text)), "{text}");
        }
    }
}
