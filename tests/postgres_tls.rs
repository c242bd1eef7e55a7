//! Promise: TLS to PostgreSQL verifies what the caller asked to verify, and says what is wrong.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/postgres.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::Command;

use holdfast::error::{Code, Result};
use holdfast::postgres::{Config, Postgres, Ssl};
use server::{PASSWORD, USER, run};

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an authority, a server certificate for `localhost` and a client certificate for the test's user.
fn certificates(folder: &Path) {
    fs::File::create(folder.join("server.ext")).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 30 -subj /CN=holdfast-test-authority"));
    openssl(folder, &format!("req -x509 {key} -keyout other.key -out other.crt -days 30 -subj /CN=another-authority"));
    for (name, extension) in [("server", "subjectAltName=DNS:localhost"), (USER, "extendedKeyUsage=clientAuth")] {
        openssl(folder, &format!("req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let mut file = fs::File::create(folder.join("ext")).unwrap();
        std::io::Write::write_all(&mut file, format!("{extension}\nbasicConstraints=CA:FALSE\n").as_bytes()).unwrap();
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 30 -extfile ext"
            ),
        );
    }
}

/// Connects and tells whether the session is encrypted.
fn encrypted(config: Config) -> Result<bool> {
    let postgres = Postgres::new(config)?;
    let pg = postgres.clone();
    run(&postgres, async move {
        let client = pg.client().await?;
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        Ok(client.fetch("asking", sql, &[]).await?[0].get(0))
    })
}

#[test]
fn tls_verifies_what_it_was_asked_to() {
    let Some(mut server) = server::own() else { return };
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: needs openssl to make certificates");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| fs::read_to_string(at(name)).unwrap();
    let port = server.port();
    let url = |host: &str, more: &str| Config {
        connection_string: Some(format!("postgres://{host}:{port}/?{more}")),
        database: Some("postgres".into()),
        user: Some(USER.into()),
        password: Some(PASSWORD.into()),
        ..Config::default()
    };
    // Before the server has TLS.
    assert!(!encrypted(url("localhost", "")).unwrap());
    let error = encrypted(url("localhost", "sslmode=no-verify")).unwrap_err();
    assert!(error.message().contains("does not support TLS"), "{error}");

    certificates(folder.path());
    let key = server.put_file("server.key", text("server.key").as_bytes());
    let cert = server.put_file("server.crt", text("server.crt").as_bytes());
    let ca = server.put_file("ca.crt", text("ca.crt").as_bytes());
    let hba = format!(
        "hostssl template1 {USER} 127.0.0.1/32 cert
hostssl postgres {USER} 127.0.0.1/32 scram-sha-256
"
    );
    server.put_file("data/pg_hba.conf", hba.as_bytes());
    server.stop();
    let file = |name: &str, path: &Path| format!("{name}={}", path.display());
    server.start_again(&[
        "-c",
        "ssl=on",
        "-c",
        &file("ssl_key_file", &key),
        "-c",
        &file("ssl_cert_file", &cert),
        "-c",
        &file("ssl_ca_file", &ca),
    ]);

    let root = format!("sslrootcert={}", at("ca.crt").display());
    let other = format!("sslrootcert={}", at("other.crt").display());
    let good = [
        ("localhost", String::new()),
        ("127.0.0.1", "sslmode=prefer".into()),
        ("127.0.0.1", "sslmode=no-verify".into()),
        ("127.0.0.1", "sslmode=require&uselibpqcompat=true".into()),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}")),
        ("localhost", format!("sslmode=verify-full&{root}")),
        ("localhost", format!("sslmode=require&{root}")),
        ("localhost", format!("ssl=true&{root}")),
        ("localhost", format!("sslmode=verify-full&channel_binding=require&{root}")),
    ];
    for (host, more) in &good {
        assert!(encrypted(url(host, more)).unwrap_or_else(|error| panic!("{host} {more}: {error}")), "{host} {more}");
    }
    let bad = [
        // Another name, another authority, an authority that the system does not know.
        ("127.0.0.1", format!("sslmode=verify-full&{root}"), "not valid for"),
        ("localhost", format!("sslmode=verify-full&{other}"), "certificate"),
        ("localhost", format!("sslmode=verify-ca&{other}"), "certificate"),
        ("localhost", "sslmode=verify-full".into(), "certificate"),
        ("localhost", "sslmode=disable".into(), "pg_hba.conf"),
    ];
    for (host, more, words) in &bad {
        let error = encrypted(url(host, more)).unwrap_err();
        assert!(error.message().contains(words), "{host} {more}: {error}");
        assert!(!error.message().contains(PASSWORD));
    }

    let custom = |ca: Option<&str>, reject: bool, name: Option<&str>| Ssl::Custom {
        ca: ca.map(|name| vec![text(name)]),
        cert: None,
        key: None,
        reject_unauthorized: reject,
        servername: name.map(str::to_owned),
    };
    let with = |host: &str, ssl: Ssl| Config { ssl, ..url(host, "sslmode=disable") };
    assert!(encrypted(with("localhost", custom(Some("ca.crt"), true, None))).unwrap());
    assert!(encrypted(with("127.0.0.1", custom(Some("ca.crt"), true, Some("localhost")))).unwrap());
    assert!(encrypted(with("127.0.0.1", custom(None, false, None))).unwrap());
    // The server's own certificate, trusted as it is.
    assert!(encrypted(with("localhost", custom(Some("server.crt"), true, None))).unwrap());
    assert!(encrypted(with("127.0.0.1", custom(Some("server.crt"), true, None))).is_err());
    assert!(encrypted(with("127.0.0.1", custom(Some("ca.crt"), true, None))).is_err());
    assert!(encrypted(with("localhost", custom(Some("other.crt"), true, None))).is_err());
    assert!(encrypted(with("localhost", Ssl::Verify)).is_err());

    // Logging in with a certificate instead of a password.
    let identity = |key: &str| Ssl::Custom {
        ca: Some(vec![text("ca.crt")]),
        cert: Some(text(&format!("{USER}.crt"))),
        key: Some(text(key)),
        reject_unauthorized: true,
        servername: Some("localhost".into()),
    };
    let by_certificate = |config: Config| Config { password: None, database: Some("template1".into()), ..config };
    let config = by_certificate(with("127.0.0.1", identity(&format!("{USER}.key"))));
    assert!(encrypted(config.clone()).unwrap());
    let error = encrypted(Config { ssl: identity("other.key"), ..config }).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(!error.message().contains("BEGIN"), "{error}");
    let files = format!("sslmode=verify-ca&{root}&sslcert={0}.crt&sslkey={0}.key", at(USER).display());
    assert!(encrypted(by_certificate(url("127.0.0.1", &files))).unwrap());
    let error = encrypted(by_certificate(url("127.0.0.1", &format!("sslmode=verify-ca&{root}")))).unwrap_err();
    assert!(error.message().contains("client certificate"), "{error}");
}
