//! Connection strings: the URL and the pair form of libpq, and what node-postgres adds to them, as one list of pairs.

use std::collections::BTreeMap;

use crate::error::{Code, HfError, Result};

/// Parameters by their libpq names.
pub(super) type Pairs = BTreeMap<String, String>;

fn invalid(why: &str) -> HfError {
    // The string itself stays out of the message: it usually holds a password.
    HfError::new(
        Code::InvalidArgument,
        format!("the connection string is not valid: {why}; expected postgres://user:password@host:port/database"),
    )
}

/// Takes a connection string apart.
pub(super) fn parse(text: &str) -> Result<Pairs> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        url(rest)
    } else if let Some(rest) = text.strip_prefix("socket:") {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut pairs = Pairs::new();
        pairs.insert("host".into(), percent_decoded(path, false)?);
        parameters(query, &mut pairs)?;
        Ok(pairs)
    } else if text.starts_with('/') {
        let (folder, database) = text.split_once(' ').unwrap_or((text, ""));
        let mut pairs = Pairs::new();
        pairs.insert("host".into(), folder.to_owned());
        insert_filled(&mut pairs, "dbname", database.trim());
        Ok(pairs)
    } else if text.contains("://") {
        Err(invalid("it has another scheme"))
    } else if text.contains('=') {
        key_values(text)
    } else {
        Err(invalid("it is neither a URL nor pairs such as host=… dbname=…"))
    }
}

fn insert_filled(pairs: &mut Pairs, key: &str, value: &str) {
    if !value.is_empty() {
        pairs.insert(key.to_owned(), value.to_owned());
    }
}

fn url(rest: &str) -> Result<Pairs> {
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut pairs = Pairs::new();
    let hosts = match authority.rsplit_once('@') {
        None => authority,
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            insert_filled(&mut pairs, "user", &percent_decoded(user, false)?);
            insert_filled(&mut pairs, "password", &percent_decoded(password, false)?);
            hosts
        }
    };
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = host_and_port(host)?;
            names.push(percent_decoded(name, false)?);
            ports.push(port);
        }
        insert_filled(&mut pairs, "host", &names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            pairs.insert("port".into(), ports.join(","));
        }
    }
    insert_filled(&mut pairs, "dbname", &percent_decoded(path, false)?);
    parameters(query, &mut pairs)?;
    Ok(pairs)
}

fn host_and_port(text: &str) -> Result<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (name, after) = rest.split_once(']').ok_or_else(|| invalid("an IPv6 address lacks its bracket"))?;
        return Ok((name, after.strip_prefix(':').unwrap_or("")));
    }
    Ok(text.rsplit_once(':').unwrap_or((text, "")))
}

/// Adds the parameters of a query part; they win over what stands before the question mark.
fn parameters(query: &str, pairs: &mut Pairs) -> Result<()> {
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key = percent_decoded(key, true)?;
        let value = percent_decoded(value, key != "password")?;
        insert_filled(pairs, canonical_key(&key), &value);
    }
    Ok(())
}

fn canonical_key(key: &str) -> &str {
    match key {
        "database" | "db" => "dbname",
        key => key,
    }
}

fn percent_decoded(text: &str, plus_is_space: bool) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    // Two hex digits always fit.
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                    _ => return Err(invalid("a % is not followed by two hex digits; write it as %25")),
                }
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| invalid("a decoded part is not UTF-8"))
}

/// `key = value` pairs; values may stand in single quotes, a backslash takes the next character as it is.
fn key_values(text: &str) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next() != Some('=') {
            return Err(invalid("a key is not followed by an equals sign"));
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match rest.next() {
                None if quoted => return Err(invalid("a quoted value does not end")),
                None => break,
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some('\\') => value.extend(rest.next()),
                Some(c) => value.push(c),
            }
        }
        insert_filled(&mut pairs, canonical_key(&key), &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn urls() {
        assert_eq!(
            of("postgres://us%40er:p%2Fw:d@db.example:6543/my%20db?sslmode=no-verify&options=-c+search_path%3Dx"),
            pairs(&[
                ("dbname", "my db"),
                ("host", "db.example"),
                ("options", "-c search_path=x"),
                ("password", "p/w:d"),
                ("port", "6543"),
                ("sslmode", "no-verify"),
                ("user", "us@er"),
            ])
        );
        assert_eq!(of("postgresql://a:1,b:2,c/d"), pairs(&[("dbname", "d"), ("host", "a,b,c"), ("port", "1,2,")]));
        assert_eq!(of("postgres://[::1]:5/"), pairs(&[("host", "::1"), ("port", "5")]));
        assert_eq!(
            of("postgres:///d?host=/run/pg&user=u"),
            pairs(&[("dbname", "d"), ("host", "/run/pg"), ("user", "u")])
        );
        assert_eq!(of("postgres://%2Frun%2Fpg/d"), pairs(&[("dbname", "d"), ("host", "/run/pg")]));
        assert_eq!(of("postgres://u:a@b@h/"), pairs(&[("host", "h"), ("password", "a@b"), ("user", "u")]));
        assert_eq!(of("postgres://h?password=a+b"), pairs(&[("host", "h"), ("password", "a+b")]));
    }

    #[test]
    fn other_forms() {
        assert_eq!(of("/cloudsql/x mine"), pairs(&[("dbname", "mine"), ("host", "/cloudsql/x")]));
        assert_eq!(of("socket:/run/pg?db=mine"), pairs(&[("dbname", "mine"), ("host", "/run/pg")]));
        assert_eq!(
            of(r"host = h  password='a \'b\\' user=x\ y dbname=''"),
            pairs(&[("host", "h"), ("password", r"a 'b\"), ("user", "x y")])
        );
    }

    #[test]
    fn refuses_without_quoting_the_string() {
        for text in
            ["mysql://u:hunter2@h", "hunter2", "postgres://u:hunter2%zz@h", "password='hunter2", "a hunter2 = 1"]
        {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
            assert!(!error.message().contains("hunter2"), "{}", error.message());
        }
    }
}
