//! A TCP proxy that delays or loses what a server answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// The proxy, until the test ends.
pub struct Proxy {
    pub port: u16,
    control: Arc<Control>,
}

#[derive(Default)]
struct Control {
    delay_ms: AtomicU64,
    lose: AtomicBool,
    terminate: AtomicBool,
}

impl Proxy {
    /// Starts one in front of a port of this machine.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let control = Arc::new(Control::default());
        let shared = Arc::clone(&control);
        spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                spawn(move || forward(from, to));
                let control = Arc::clone(&shared);
                spawn(move || answer(server, client, &control));
            }
        });
        Self { port, control }
    }

    /// Holds each answer back; what arrives meanwhile goes out with it.
    pub fn delay(&self, ms: u64) {
        self.control.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// From now on: cuts the connection instead of passing on an answer.
    pub fn lose_answers(&self, lose: bool) {
        self.control.lose.store(lose, Ordering::SeqCst);
    }

    /// Like [`lose_answers`](Self::lose_answers), with the goodbye of a session that an administrator ends.
    pub fn terminate(&self, terminate: bool) {
        self.control.terminate.store(terminate, Ordering::SeqCst);
    }
}

/// An ErrorResponse with severity FATAL and SQLSTATE 57P01.
fn goodbye() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [b"E".as_slice(), &length, fields].concat()
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn answer(mut server: TcpStream, mut client: TcpStream, control: &Control) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(mut count @ 1..) = server.read(&mut buffer) {
        if control.lose.load(Ordering::SeqCst) {
            break;
        }
        if control.terminate.load(Ordering::SeqCst) {
            let _ = client.write_all(&goodbye());
            break;
        }
        let delay = control.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            sleep(Duration::from_millis(delay));
            server.set_nonblocking(true).unwrap();
            count += server.read(&mut buffer[count..]).unwrap_or(0);
            server.set_nonblocking(false).unwrap();
        }
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
