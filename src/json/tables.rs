//! Texts and answers of Node 20: what `JSON.parse` accepts, and how `JSON.stringify(value, null, 2)` lays out.

use super::*;

#[rustfmt::skip]
const ACCEPTED: &[&str] = &[
    "0", "-0", "1", "-1", "10", "0.5", "-0.0", "1e5", "1E5", "1e+5", "1e-5", "0e0", "0E+1", "1.5e300", "1e400", "-1e400",
    "1e-400", "123456789012345678901234567890", "0.00000000000000000000000000000000000000001", "20e1", "1.000000000005",
    "true", "false", "null", "\"\"", "\"a\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0000\"", "\"\\uABCD\\uabcd\"",
    "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\\ud83d\\ude00\"", "\"\\ud800\\n\"", "\"\u{7f}\"", "\"\u{2028}\u{2029}\"",
    "\"\u{feff}\"", "\"é😀\u{10ffff}\"", "\"/*x*/\"", "\"\\\\u0000\"", "\"{}[],:\"", "[]", "[ ]", "{}", "{ }", "[[]]",
    "[[],[[]]]", "[1]", "[1,2]", "[ 1 , 2 ]", "[null,true,false]", "[\"\",{}]", "[1\n]", "[\t1\r,\n2 ]",
    "{\"a\":1}", "{\"\":0}", "{\"a\":{}}", "{\"a\":1,\"a\":2}", "{\"a\" :\t1 ,\r\n \"b\":[]}", "{\"__proto__\":1}",
    "{\"\\u0000\":0}", "{\"\\ud800\":0}", " 1", "1 ", "\n\r\t 1\n\r\t ", " [] ", " \"\" ",
    "[0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999]",
];

#[rustfmt::skip]
const REJECTED: &[&str] = &[
    "", " ", "\n", "\u{feff}1", "\u{feff}", "1\u{feff}", "\u{a0}1", "\u{c}1", "\u{b}1", "\u{2028}1", "\u{0}", "1\u{0}",
    "+1", "01", "-01", "00", "-", "--1", "1.", ".1", "-.1", "1.e1", "1e", "1e+", "1E-", "1e1.5", "1.2.3", "0x10", "1_000",
    "1n", "0e", "2.e3", "1 2", "1,", "1a", "Infinity", "-Infinity", "NaN", "-NaN", "inf", "١", "-a", "1\u{ff11}",
    "t", "tru", "trues", "True", "TRUE", "nul", "nulll", "nil", "fals", "falsee", "undefined", "true false", "truefalse",
    "\"", "\"a", "'a'", "a", "\"\\\"", "\"\\", "\"\\x41\"", "\"\\'\"", "\"\\a\"", "\"\\0\"", "\"\\U0041\"", "\"\\u\"",
    "\"\\u1\"", "\"\\u12\"", "\"\\u123\"", "\"\\u123", "\"\\u12g4\"", "\"\\u 123\"", "\"\\u+123\"", "\"\\ud800\\u\"",
    "\"\\ud800\\u1x\"", "\"\\é\"", "\"\\\n\"", "\"\n\"", "\"\t\"", "\"\r\"", "\"\u{0}\"", "\"\u{1f}\"", "\"a\"b\"",
    "\"\"\"", "\"a\"\"b\"", "\"0123456789abcde\n\"", "\"0123456789abcdef\u{1}\"", "`a`",
    "[", "]", "[1", "[1,", "[,", "[,1]", "[1,]", "[1,,2]", "[1 2]", "[1;2]", "[1:2]", "[\"a\":1]", "[1}", "[1]]", "[[]",
    "[]]", "[][]", "[],", "[1]x", "[\u{a0}]", "[...]", "[*]", "[\"\"", "[-]", "[tru]", "[1,\n1\n,1", "[/**/]", "[1//\n]",
    "{", "}", "{]", "[}", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1", "{\"a\":", "{\"a\"", "{\"a", "{a:1}",
    "{'a':1}", "{1:1}", "{null:1}", "{[]:1}", "{\"a\" 1}", "{\"a\"::1}", "{\"a\":1:2}", "{\"a\":1,,\"b\":2}", "{,\"a\":1}",
    "{\"a\":1 \"b\":2}", "{\"a\":1;\"b\":2}", "{\"a\",1}", "{\"a\":1}}", "{\"a\":1}{", "{\"a\":1]", "{\"a\":1}#",
    "{\"a\":\"b\"}//", "{\"a\":/*c*/1}", "{\"a\\\":1}", "{\"\n\":1}", "{:1}", "{\"a\":a}", "{\"a\" :\u{b}1}", "{{}}",
];

/// Pairs of `JSON.stringify(value)` and `JSON.stringify(value, null, 2)`.
#[rustfmt::skip]
const LAYOUTS: &[(&str, &str)] = &[
    ("null", "null"),
    ("true", "true"),
    ("0", "0"),
    ("-1.5", "-1.5"),
    ("1e+21", "1e+21"),
    ("1e-7", "1e-7"),
    (r#""""#, r#""""#),
    ("\"a \\\"b\\\" \\\\ /\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}\u{2028}é😀\"", "\"a \\\"b\\\" \\\\ /\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}\u{2028}é😀\""),
    (r#""\ud800x""#, r#""\ud800x""#),
    ("[]", "[]"),
    ("{}", "{}"),
    ("[[]]", "[\n  []\n]"),
    ("[{}]", "[\n  {}\n]"),
    (r#"{"a":[]}"#, "{\n  \"a\": []\n}"),
    (r#"{"a":{}}"#, "{\n  \"a\": {}\n}"),
    ("[1,2,3]", "[\n  1,\n  2,\n  3\n]"),
    ("[[1],[2,[3]]]", "[\n  [\n    1\n  ],\n  [\n    2,\n    [\n      3\n    ]\n  ]\n]"),
    (r#"[null,true,false,"x",1.25,{}]"#, "[\n  null,\n  true,\n  false,\n  \"x\",\n  1.25,\n  {}\n]"),
    (r#"{"a":1}"#, "{\n  \"a\": 1\n}"),
    (r#"{"a":1,"b":"two","c":[3,{"d":4}]}"#, "{\n  \"a\": 1,\n  \"b\": \"two\",\n  \"c\": [\n    3,\n    {\n      \"d\": 4\n    }\n  ]\n}"),
    (r#"{"":0," ":[" ","  "],"{[,:]}":"{[,:]}","é":"\n"}"#, "{\n  \"\": 0,\n  \" \": [\n    \" \",\n    \"  \"\n  ],\n  \"{[,:]}\": \"{[,:]}\",\n  \"é\": \"\\n\"\n}"),
    (r#"{"1":"a","2":"b","z":{"y":{"x":[[],{},[{"w":null}]]}}}"#, "{\n  \"1\": \"a\",\n  \"2\": \"b\",\n  \"z\": {\n    \"y\": {\n      \"x\": [\n        [],\n        {},\n        [\n          {\n            \"w\": null\n          }\n        ]\n      ]\n    }\n  }\n}"),
    (r#"{"version":3,"metadata":{"writer":"w-1","at":1700000000000},"data":{"sessions":[{"id":"ses_1","ok":true,"tags":[]},{"id":"ses_2","ok":false,"tags":["a","b"]}]}}"#, "{\n  \"version\": 3,\n  \"metadata\": {\n    \"writer\": \"w-1\",\n    \"at\": 1700000000000\n  },\n  \"data\": {\n    \"sessions\": [\n      {\n        \"id\": \"ses_1\",\n        \"ok\": true,\n        \"tags\": []\n      },\n      {\n        \"id\": \"ses_2\",\n        \"ok\": false,\n        \"tags\": [\n          \"a\",\n          \"b\"\n        ]\n      }\n    ]\n  }\n}"),
    (r#"{"big":9007199254740991,"neg":-9007199254740991,"tiny":5e-324,"max":1.7976931348623157e+308,"pi":3.141592653589793}"#, "{\n  \"big\": 9007199254740991,\n  \"neg\": -9007199254740991,\n  \"tiny\": 5e-324,\n  \"max\": 1.7976931348623157e+308,\n  \"pi\": 3.141592653589793\n}"),
];

#[test]
fn accepts_what_node_accepts() {
    for text in ACCEPTED {
        assert_eq!(validate(text.as_bytes()), Ok(()), "{text:?}");
        let wrapped = format!("{{\"key\": [\n  {text},\n  {text}\n]}}");
        assert_eq!(validate(wrapped.as_bytes()), Ok(()), "{wrapped:?}");
    }
}

#[test]
fn rejects_what_node_rejects() {
    for text in REJECTED {
        assert!(validate(text.as_bytes()).is_err(), "{text:?}");
        assert!(Object::parse(text).is_err() && array(text).is_err(), "{text:?}");
        assert_eq!((string(text), number(text)), (None, None), "{text:?}");
        // Far from the text's end the probes do the work that single bytes do above. Some of these texts hide in a list.
        let wrapped = format!("[{text}                     ]");
        if validate(wrapped.as_bytes()).is_ok() {
            assert!(
                ["", " ", "\n", "1 2", "1,"].contains(text)
                    || serde_json::from_str::<serde_json::Value>(&wrapped).is_ok()
            );
        }
    }
}

#[test]
fn lays_out_like_node() {
    for (tight, wide) in LAYOUTS {
        let mut out = String::from("x");
        pretty(tight, 0, &mut out);
        assert_eq!(out, format!("x{wide}"));
        out.clear();
        pretty(wide, 2, &mut out);
        assert_eq!(out, wide.replace('\n', "\n    "));
        assert_eq!(compact(wide), *tight);
        assert_eq!(compact(tight), *tight);
        assert_eq!(equal(tight, wide), Ok(true));
    }
}

#[test]
fn layout_keeps_tokens() {
    let text = "\t[ 1.0,1E+2 ,-0, 1e400,\"\\u0041\\/\\ud800 ,: \",{\"b\" : [ ],\"a\":{ },\"b\":null} ]\r\n";
    let tight = "[1.0,1E+2,-0,1e400,\"\\u0041\\/\\ud800 ,: \",{\"b\":[],\"a\":{},\"b\":null}]";
    assert_eq!(compact(text), tight);
    let (mut one, mut other) = (String::new(), String::new());
    pretty(text, 1, &mut one);
    pretty(tight, 1, &mut other);
    assert_eq!(one, other);
    assert_eq!(
        one,
        "[\n    1.0,\n    1E+2,\n    -0,\n    1e400,\n    \"\\u0041\\/\\ud800 ,: \",\n    {\n      \"b\": [],\n      \
         \"a\": {},\n      \"b\": null\n    }\n  ]"
    );
}

#[test]
fn lays_out_beyond_the_ready_made_line() {
    let text = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let mut out = String::new();
    pretty(&text, 0, &mut out);
    let deepest = out.lines().nth(100).map(str::to_owned);
    assert_eq!(deepest, Some(format!("{}1", "  ".repeat(100))));
    assert_eq!(compact(&out), text);
}

#[test]
fn invalid_utf8_belongs_in_strings_only() {
    for (text, expected) in [
        (&b"\"\xff\xc3\""[..], Ok(())),
        (b"{\"\xed\xa0\x80\":\"0123456789abcdef\xf0\x9f\"}", Ok(())),
        (b"\xff", Err(0)),
        (b"[1,\xc3\xa9]", Err(3)),
        (b"[1]\x80", Err(3)),
        (b"\"\xc3\\\xa9\"", Err(3)),
    ] {
        assert_eq!(validate(text).map_err(|error| error.offset), expected, "{text:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let unit = if open.starts_with("[{") { 2 } else { 1 };
        for depth in [1, 63, 64, 65, 127, 128, 129, 1000, DEPTH_MAX / unit] {
            let text = format!("{}0{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(validate(text.as_bytes()), Ok(()), "{open} {depth}");
            assert_eq!(
                validate(text.replacen('0', "0,", 1).as_bytes()).map_err(|error| error.what),
                Err(JsonFault::UnexpectedToken)
            );
            let crossed = text.replacen(close, if close.starts_with('}') { "]" } else { "}" }, 1);
            assert!(validate(crossed.as_bytes()).is_err(), "{open} {depth}");
        }
        let text = open.repeat(DEPTH_MAX + 1);
        assert_eq!(validate(text.as_bytes()).map_err(|error| error.what), Err(JsonFault::TooDeep));
    }
}

#[test]
fn errors_display() {
    for (text, expected) in [
        ("[1,\n  x]", "Unexpected token at position 6"),
        ("[1,", "Unexpected end of JSON at position 3"),
        ("\"a\u{1}\"", "Control character in a string at position 2"),
        ("\"\\u12g4\"", "Bad escape in a string at position 5"),
        ("\"\\x\"", "Bad escape in a string at position 2"),
        (&"[".repeat(DEPTH_MAX + 1), "More than 100000 levels of nesting at position 100000"),
    ] {
        assert_eq!(validate(text.as_bytes()).map_err(|error| error.to_string()), Err(expected.to_owned()));
    }
}
