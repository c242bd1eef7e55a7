//! How commands are read, and how answers are written.

use rusqlite::Connection;

use super::mended::mended;
use super::{Context, Read, Write};
use crate::error::Code;
use crate::lifecycle::owners::Fixed;
use crate::lifecycle::sql::sqlite::Sqlite;

#[test]
fn a_name_may_stand_anywhere() {
    for text in [
        r#"{"do":"deletePr","url":"u"}"#,
        r#"{"url":"u","do":"deletePr"}"#,
        r#" { "do" : "deletePr", "url":"u", "more": [1] }"#,
        r#"{"do":"delete\u0050r","url":"u"}"#,
    ] {
        assert!(matches!(Write::parse(text), Ok(Write::DeletePr(_))), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_without_its_values() {
    for text in [
        "",
        "hunter2",
        r#"{"do":"hunter"#,
        r#"{"do":"nothing"}"#,
        r#"{"do":"deletePr"}"#,
        r#"{"do":"deletePr","url":["hunter2"]}"#,
        r#"{"do":"archiveProject","id":"p","at":", expected hunter2"}"#,
        r#"{"do":"ack","consumer":"c","seq":1.5,"now":1}"#,
        r#"{"do":"ack","consumer":"c","seq":1e300,"now":1}"#,
    ] {
        let error = Write::parse(text).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{text}");
        assert!(!error.message().contains("hunter2"), "{error}");
    }
    let missing = Read::parse(r#"{"do":"session"}"#).unwrap_err();
    assert!(missing.message().contains("session: `id` is missing"), "{missing}");
}

#[test]
fn lone_surrogates_are_replaced_and_nothing_else() {
    for (text, expected) in [
        (r#"{"a":"plain \n"}"#, r#"{"a":"plain \n"}"#),
        (r#""\ud83d""#, "\"\u{fffd}\""),
        (r#""x\ude00y\ud83dz""#, "\"x\u{fffd}y\u{fffd}z\""),
        (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
        (r#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\\ud83d\\ude00\""),
        (r#""\\ud83d""#, r#""\\ud83d""#),
        (r#""\\\ud83d""#, "\"\\\\\u{fffd}\""),
        (r#""\ud83"#, r#""\ud83"#),
        (r#""\ud83d\"#, "\"\u{fffd}\\"),
    ] {
        assert_eq!(mended(text), expected, "{text}");
    }
    let command = r#"{"do":"deletePr","url":"cut \ud83d"}"#;
    let Ok(Write::DeletePr(by)) = Write::parse(command) else { panic!("it is read") };
    assert_eq!(by.url, "cut \u{fffd}");
}

#[test]
fn long_answers_have_an_element_per_line() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(include_str!("../../../migrations/sqlite/lifecycle/0001_sessions.sql")).unwrap();
    let mut sql = Sqlite(&db);
    let owners = Fixed::new("me", &[]);
    let context = Context { owners: &owners, harnesses: &[] };
    let project = r#"{"do":"upsertProject","project":{"id":"p","path":"/p"},"now":1}"#;
    Write::parse(project).unwrap().run(&mut sql, &context).unwrap();
    for _ in 0..2 {
        let create = r#"{"do":"createSession","session":{"projectId":"p","metadata":{"prompt":"},\n{"}},"now":1}"#;
        Write::parse(create).unwrap().run(&mut sql, &context).unwrap();
    }
    for command in [
        r#"{"do":"allSessions"}"#,
        r#"{"do":"sessions","projectId":"p"}"#,
        r#"{"do":"running"}"#,
        r#"{"do":"views","projectId":"p"}"#,
        r#"{"do":"changes","after":0}"#,
    ] {
        let text = Read::parse(command).unwrap().run(&mut sql).unwrap().unwrap();
        assert_eq!(text.matches("},\n{").count(), 1, "{command}: {text}");
        assert_eq!(text.lines().count(), 2, "{command}: {text}");
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap().len(), 2, "{command}: {text}");
    }
}
