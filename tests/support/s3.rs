//! An S3 server for tests: moto (PyPI: `moto[s3,server]`), started on a free loopback port, and a proxy before it that can be
//! told to misbehave.
//!
//! The program is looked for in `HOLDFAST_S3_SERVER` (the path of a `moto_server`) and on the `PATH`.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use holdfast::blobs::S3Options;

/// A running server, which ends with the value.
pub struct Server {
    port: u16,
    child: Child,
}

/// The program, `None` (told loudly) where there is none.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("HOLDFAST_S3_SERVER").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut folders =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>().into_iter();
    let found =
        named.or_else(|| folders.find_map(|folder| Some(folder.join("moto_server")).filter(|path| path.exists())));
    if found.is_none() {
        // Where a test that passes shows it, too: the runner keeps what was printed.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: needs an S3 server (pip install 'moto[s3,server]', or HOLDFAST_S3_SERVER)"
        );
    }
    found
}

/// Starts a server that demands nothing of who asks, or that knows nobody and lets nobody in after the first request.
pub fn start(strict: bool) -> Option<Server> {
    let program = program()?;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    if strict {
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "1");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { port, child };
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the S3 server does not start");
        sleep(Duration::from_millis(50));
    }
    Some(server)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a bucket and returns how to use it.
    pub fn bucket(&self, name: &str) -> S3Options {
        let status = self.request("PUT", &format!("/{name}"), b"");
        assert_eq!(status, 200, "making the bucket {name}");
        options(self.port, name)
    }

    /// Sends a request that nobody checks the signature of, and returns the status.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\nAuthorization: \
             AWS4-HMAC-SHA256 Credential=t/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        status(&answer)
    }
}

pub fn options(port: u16, bucket: &str) -> S3Options {
    S3Options {
        bucket: bucket.into(),
        access_key_id: "AKIATESTER".into(),
        secret_access_key: "hunter2".into(),
        region: None,
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        force_path_style: true,
        prefix: None,
    }
}

fn status(answer: &[u8]) -> u16 {
    String::from_utf8_lossy(answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// What a proxy does with a request.
pub enum Deed {
    /// Passes it on.
    Pass,
    /// Answers itself.
    Answer(&'static str),
    /// Answers itself, after that time.
    Late(&'static str, Duration),
    /// Passes it on and throws the answer away.
    Lose,
    /// Passes it on and breaks off within the answer's last `usize` bytes.
    Cut(usize),
}

/// A request's head (`PUT /b/k HTTP/1.1` and its header lines, lower case) and its number among the requests, to a deed.
pub type Judge = Arc<dyn Fn(&str, usize) -> Deed + Send + Sync>;

/// Starts a proxy to `port` on a port of its own. It serves one request per connection.
pub fn proxy(port: u16, judge: Judge) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (judge, count) = (Arc::clone(&judge), Arc::clone(&count));
            thread::spawn(move || serve(stream, port, &judge, &count));
        }
    });
    own
}

fn serve(mut client: TcpStream, port: u16, judge: &Judge, count: &AtomicUsize) -> io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 65536];
    let end = loop {
        let read = client.read(&mut part)?;
        request.extend_from_slice(&part[..read]);
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if read == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    while request.len() < end + length {
        let read = client.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    }
    let deed = judge(&head, count.fetch_add(1, Ordering::SeqCst));
    if let Deed::Late(_, time) = deed {
        sleep(time);
    }
    if let Deed::Answer(status) | Deed::Late(status, _) = deed {
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return client.write_all(text.as_bytes());
    }
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    // One request per connection: the end of the answer is the end of the stream.
    let line = request.iter().position(|byte| *byte == b'\n').unwrap_or_default() + 1;
    server.write_all(&request[..line])?;
    server.write_all(b"Connection: close\r\n")?;
    server.write_all(&request[line..])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match deed {
        Deed::Lose => Ok(()),
        Deed::Cut(bytes) => client.write_all(&answer[..answer.len() - bytes]),
        _ => client.write_all(&answer),
    }
}
