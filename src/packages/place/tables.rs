//! The rules of placement, one by one.

use std::collections::BTreeMap;

use super::*;
use crate::error::{Code, Result};
use crate::packages::lockfile::Entry;

/// A manifest of `name@version` labels, each with its `package.json` (`""` for none).
struct Manifest {
    entries: Vec<Entry>,
    packages: BTreeMap<(String, String), String>,
}

fn manifest(rows: &[(&str, &str)]) -> Manifest {
    let mut found = Manifest { entries: Vec::new(), packages: BTreeMap::new() };
    for (index, (label, package)) in rows.iter().enumerate() {
        let (name, version) = label.rsplit_once('@').expect("name@version");
        let (name, version) = (name.to_owned(), version.to_owned());
        found.packages.entry((name.clone(), version.clone())).or_insert_with(|| (*package).to_owned());
        found.entries.push(Entry { name, version, integrity: format!("sha-{index}"), blob_sha256: None });
    }
    found
}

fn host() -> Host {
    Host { os: "linux".into(), cpu: "x64".into(), libc: Some("glibc".into()) }
}

fn needs(dependencies: &str) -> String {
    format!("{{\"dependencies\":{{{dependencies}}}}}")
}

impl Manifest {
    fn plan_with(&self, roots: &Roots) -> Result<Placement> {
        let packages = |entry: &Entry| {
            let text = &self.packages[&(entry.name.clone(), entry.version.clone())];
            Ok(PackageJson::parse(text, &|name| name == "brought"))
        };
        plan(&self.entries, &packages, roots, &host())
    }

    fn plan(&self) -> Result<Placement> {
        self.plan_with(&Roots::new())
    }

    /// `path=version`, without the word `node_modules`, sorted.
    fn layout(&self) -> Vec<String> {
        self.shown(&self.plan().expect("a plan"))
    }

    fn shown(&self, placement: &Placement) -> Vec<String> {
        let short = |path: &str| path.replace("/node_modules/", " > ").replace("node_modules/", "");
        let mut lines: Vec<_> = placement
            .placed
            .iter()
            .map(|one| format!("{}={}", short(&one.path), self.entries[one.entry].version))
            .collect();
        lines.sort();
        lines
    }

    fn kinds(&self) -> Vec<FindingKind> {
        self.plan().expect("a plan").findings.iter().map(|finding| finding.kind).collect()
    }
}

#[test]
fn the_first_version_of_a_name_goes_to_the_root() {
    let chalk = needs(r#""ansi-styles":"^4.1.0""#);
    let rows = [("ansi-styles@6.2.1", "{}"), ("chalk@4.1.2", chalk.as_str()), ("ansi-styles@4.3.0", "{}")];
    let manifest = manifest(&rows);
    assert_eq!(manifest.layout(), ["ansi-styles=6.2.1", "chalk > ansi-styles=4.3.0", "chalk=4.1.2"]);
    let roots =
        Roots::from([("ansi-styles".to_owned(), "4.3.0".to_owned()), ("absent".to_owned(), "1.0.0".to_owned())]);
    let placement = manifest.plan_with(&roots).expect("a plan");
    assert_eq!(manifest.shown(&placement), ["ansi-styles=4.3.0", "chalk=4.1.2"]);
    assert_eq!(placement.root, BTreeMap::from([("ansi-styles".to_owned(), 2), ("chalk".to_owned(), 1)]));
    let unknown = Roots::from([("ansi-styles".to_owned(), "5.0.0".to_owned())]);
    assert_eq!(manifest.shown(&manifest.plan_with(&unknown).expect("a plan")), manifest.layout());
}

#[test]
fn the_highest_version_that_satisfies_is_nested() {
    let a = needs(r#""b":"^2.0.0""#);
    let rows = [
        ("a@1.0.0", a.as_str()),
        ("b@1.0.0", ""),
        ("b@2.9.0", ""),
        ("b@2.10.0", ""),
        ("b@2.11.0-rc.1", ""),
        ("b@3.0.0", ""),
    ];
    assert_eq!(manifest(&rows).layout(), ["a > b=2.10.0", "a=1.0.0", "b=1.0.0"]);
}

#[test]
fn what_is_visible_does_if_nothing_satisfies_better() {
    let a = needs(r#""b":"^1.0.0""#);
    let rows = [("a@1.0.0", a.as_str()), ("b@1.1.0", ""), ("b@1.0.0", ""), ("b@2.0.0", "")];
    assert_eq!(manifest(&rows).layout(), ["a=1.0.0", "b=1.1.0"]);
    // The higher one is in the manifest because Bun resolved the range to it.
    let rows = [("a@1.0.0", a.as_str()), ("b@1.0.0", ""), ("b@1.1.0", "")];
    assert_eq!(manifest(&rows).layout(), ["a > b=1.1.0", "a=1.0.0", "b=1.0.0"]);
    // Any version is what a tag asks for.
    let tag = needs(r#""b":"latest""#);
    let rows = [("a@1.0.0", tag.as_str()), ("b@1.0.0", ""), ("b@1.1.0", "")];
    assert_eq!(manifest(&rows).layout(), ["a=1.0.0", "b=1.0.0"]);
}

#[test]
fn nothing_is_hoisted_half_way() {
    let (a, b) = (needs(r#""b":"2""#), needs(r#""c":"2""#));
    let rows = [("a@1.0.0", a.as_str()), ("b@1.0.0", ""), ("c@1.0.0", ""), ("b@2.0.0", b.as_str()), ("c@2.0.0", "")];
    assert_eq!(manifest(&rows).layout(), ["a > b > c=2.0.0", "a > b=2.0.0", "a=1.0.0", "b=1.0.0", "c=1.0.0"]);
}

#[test]
fn aliases_stand_under_their_key() {
    let cli = needs(r#""string-width":"^5.1.2","string-width-cjs":"npm:string-width@^4.2.0""#);
    let old = needs(r#""strip-ansi":"^6.0.1""#);
    let strip = needs(r#""ansi-regex":"^5.0.1""#);
    let rows = [
        ("@isaacs/cliui@8.0.2", cli.as_str()),
        ("ansi-regex@6.0.0", ""),
        ("string-width@5.1.2", ""),
        ("strip-ansi@7.1.0", ""),
        ("string-width@4.2.3", old.as_str()),
        ("strip-ansi@6.0.1", strip.as_str()),
        ("ansi-regex@5.0.1", ""),
    ];
    let layout = manifest(&rows).layout();
    assert!(layout.contains(&"string-width-cjs=4.2.3".to_owned()), "{layout:?}");
    assert!(layout.contains(&"string-width-cjs > strip-ansi=6.0.1".to_owned()));
    assert!(layout.contains(&"string-width-cjs > strip-ansi > ansi-regex=5.0.1".to_owned()));
    // Another package under the key does not do, whatever its version.
    let user = needs(r#""b":"npm:c@*""#);
    assert_eq!(
        manifest(&[("a@1.0.0", user.as_str()), ("b@1.0.0", ""), ("c@1.0.0", "")]).layout(),
        ["a > b=1.0.0", "a=1.0.0", "b=1.0.0", "c=1.0.0"]
    );
}

#[test]
fn what_is_no_range_is_any_version() {
    for spec in ["latest", "git+https://h/x.git", "workspace:*", "file:../b"] {
        let a = needs(&format!("\"b\":\"{spec}\""));
        assert_eq!(
            manifest(&[("a@1.0.0", a.as_str()), ("b@1.0.0", ""), ("b@2.0.0", "")]).layout(),
            ["a=1.0.0", "b=1.0.0"],
            "{spec}"
        );
    }
}

#[test]
fn peers_are_never_nested() {
    let a = r#"{"peerDependencies":{"b":"2","c":"1"},"peerDependenciesMeta":{"d":{"optional":true}}}"#;
    let rows = manifest(&[("a@1.0.0", a), ("b@1.0.0", ""), ("b@2.0.0", "")]);
    assert_eq!(rows.layout(), ["a=1.0.0", "b=1.0.0"]);
    assert_eq!(rows.kinds(), [FindingKind::PeerMismatch, FindingKind::PeerMissing]);
    let aliased = r#"{"peerDependencies":{"x":"npm:b@2"}}"#;
    assert_eq!(
        manifest(&[("a@1.0.0", aliased), ("b@1.0.0", ""), ("b@2.0.0", "")]).layout(),
        ["a=1.0.0", "b=1.0.0", "x=2.0.0"]
    );
}

#[test]
fn a_stand_in_is_taken_where_no_version_satisfies() {
    let a = needs(r#""b":"^9""#);
    let rows = manifest(&[("a@1.0.0", a.as_str()), ("b@1.0.0", ""), ("b@2.0.0", "")]);
    assert_eq!(rows.layout(), ["a=1.0.0", "b=1.0.0"]);
    assert_eq!(rows.kinds(), [FindingKind::Unsatisfied]);
    let message = &rows.plan().expect("a plan").findings[0].message;
    assert_eq!(message, "a@1.0.0 in node_modules/a asks for b@^9: no version in the manifest satisfies, took b@1.0.0");
    let aliased = needs(r#""x":"npm:b@^9""#);
    assert_eq!(manifest(&[("a@1.0.0", aliased.as_str()), ("b@1.0.0", "")]).layout(), ["a=1.0.0", "b=1.0.0", "x=1.0.0"]);
}

#[test]
fn a_missing_package_is_an_error_unless_it_is_optional() {
    let error = manifest(&[("a@1.0.0", &needs(r#""b":"^1""#))]).plan().expect_err("b is missing");
    assert_eq!(
        (error.code(), error.message()),
        (Code::PkgDepMissing, "a@1.0.0 requires b@^1, which is not in the manifest")
    );
    let error = manifest(&[("a@1.0.0", &needs(r#""x":"npm:@s/b@^1""#))]).plan().expect_err("b is missing");
    assert_eq!(error.message(), "a@1.0.0 requires @s/b@^1, which is not in the manifest");
    for package in
        [r#"{"optionalDependencies":{"b":"^1"}}"#, r#"{"dependencies":{"b":"^1"},"optionalDependencies":{"b":"^1"}}"#]
    {
        assert_eq!(manifest(&[("a@1.0.0", package)]).layout(), ["a=1.0.0"]);
    }
    assert_eq!(
        manifest(&[(
            "a@1.0.0",
            r#"{"devDependencies":{"b":"1"},"dependencies":{"brought":"1"},"bundleDependencies":["brought"]}"#
        )])
        .layout(),
        ["a=1.0.0"]
    );
}

#[test]
fn packages_of_other_hosts_are_left_out() {
    let a = r#"{"dependencies":{"mac":"1"},"optionalDependencies":{"b":"^2"}}"#;
    let rows = manifest(&[
        ("a@1.0.0", a),
        ("mac@1.0.0", r#"{"os":["darwin"]}"#),
        ("b@1.0.0", ""),
        ("b@2.0.0", r#"{"cpu":["arm64"]}"#),
    ]);
    assert_eq!(rows.layout(), ["a=1.0.0", "b=1.0.0"]);
    let placement = rows.plan().expect("a plan");
    assert_eq!(placement.findings, []);
    assert_eq!(placement.root.get("mac"), Some(&1), "still pinned");
    let first = manifest(&[("b@2.0.0", r#"{"libc":"musl"}"#), ("b@1.0.0", "")]);
    assert_eq!(first.layout(), ["b=1.0.0"], "the first entry that can be used");
}

#[test]
fn of_equal_entries_the_first_counts() {
    let rows = manifest(&[("a@1.0.0", ""), ("a@1.0.0", "")]);
    let placement = rows.plan().expect("a plan");
    assert_eq!(placement.placed.iter().map(|one| one.entry).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_key_cannot_leave_the_tree() {
    for key in ["../../x", "/x", ".bin", "a/b", "node_modules", "..\\\\x"] {
        let required = needs(&format!("\"{key}\":\"npm:b@1\""));
        let error = manifest(&[("a@1.0.0", required.as_str()), ("b@1.0.0", "")]).plan().expect_err("a bad key");
        assert_eq!(error.code(), Code::PkgBadName, "{key}");
        assert!(error.message().contains("; the package.json of a@1.0.0 requires it"), "{error}");
        let optional = manifest(&[
            ("a@1.0.0", &format!("{{\"optionalDependencies\":{{\"{key}\":\"npm:b@1\"}}}}")),
            ("b@1.0.0", ""),
        ]);
        assert_eq!(
            (optional.layout(), optional.kinds()),
            (vec!["a=1.0.0".to_owned(), "b=1.0.0".to_owned()], vec![FindingKind::BadKey])
        );
    }
    assert_eq!(manifest(&[("../a@1.0.0", "")]).plan().expect_err("a bad name").code(), Code::PkgBadName);
    assert_eq!(manifest(&[("a@1/../..", "")]).plan().expect_err("a bad version").code(), Code::PkgBadName);
}

#[test]
fn a_cycle_of_conflicts_ends() {
    // Each needs the version of the other that is not above it: nested as asked, this would never end.
    let (a1, a2) = (needs(r#""b":"2""#), needs(r#""b":"1""#));
    let (b1, b2) = (needs(r#""a":"1""#), needs(r#""a":"2""#));
    let rows = manifest(&[("a@1.0.0", &a1), ("b@1.0.0", &b1), ("a@2.0.0", &a2), ("b@2.0.0", &b2)]);
    assert!(rows.kinds().contains(&FindingKind::Cycle));
    assert!(rows.plan().expect("a plan").placed.len() < 20);
    // A plain cycle needs nothing special.
    let plain = manifest(&[("a@1.0.0", &needs(r#""b":"1""#)), ("b@1.0.0", &needs(r#""a":"1","b":"1""#))]);
    assert_eq!((plain.layout(), plain.kinds()), (vec!["a=1.0.0".to_owned(), "b=1.0.0".to_owned()], vec![]));
}

#[test]
fn packages_that_multiply_are_refused() {
    // Ten names in three versions, each of which needs the next version of all the others.
    let mut rows = Vec::new();
    for version in 1..=3 {
        for name in 0..10 {
            let all: Vec<_> = (0..10)
                .filter(|&other| other != name)
                .map(|other| format!("\"p{other}\":\"{}\"", version % 3 + 1))
                .collect();
            rows.push((format!("p{name}@{version}.0.0"), needs(&all.join(","))));
        }
    }
    let rows: Vec<_> = rows.iter().map(|(label, package)| (label.as_str(), package.as_str())).collect();
    assert_eq!(manifest(&rows).plan().expect_err("too many copies").code(), Code::PkgLayout);
}

#[test]
fn commands_of_a_layout() {
    let tool = r#"{"bin":{"t":"cli.js","gone":"gone.js"}}"#;
    let rows = manifest(&[
        ("uuid@8.0.0", r#"{"bin":"cli.js"}"#),
        ("node-uuid@1.0.0", r#"{"bin":{"uuid":"./cli.js"}}"#),
        ("@sc/tool@1.0.0", tool),
        ("user@1.0.0", r#"{"dependencies":{"uuid":"3","alias":"npm:@sc/tool@1"}}"#),
        ("uuid@3.0.0", r#"{"bin":"cli.js"}"#),
    ]);
    let placement = rows.plan().expect("a plan");
    let bins = placement.bins(&rows.entries, &|_| Ok(vec!["cli.js".to_owned()])).expect("bins");
    let shown: Vec<_> = bins.iter().map(|bin| format!("{}/{} -> {}", bin.folder, bin.name, bin.target)).collect();
    assert_eq!(
        shown,
        [
            "node_modules/.bin/t -> ../@sc/tool/cli.js",
            "node_modules/.bin/uuid -> ../node-uuid/cli.js",
            "node_modules/user/node_modules/.bin/uuid -> ../uuid/cli.js",
        ]
    );
    assert_eq!(placement.bins(&rows.entries, &|_| Ok(Vec::new())).expect("bins"), []);
}
