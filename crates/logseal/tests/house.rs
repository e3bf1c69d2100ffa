//! The rules of the house that a machine can hold: who may depend on whom, how files begin, how long they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Table;

/// For each crate the crates of ours that it may depend on. A new edge is the rarest change: add it here and say why.
const EDGES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("alloc", &[]),
    ("crypto", &["core"]),
    ("tls", &["core", "crypto"]), // every door may be served over it
    ("otlp", &["core"]),
    ("vault", &["core", "crypto"]),
    ("catalog", &["core", "crypto"]),
    ("keys", &["core", "crypto", "vault", "catalog"]),
    ("wal", &["core", "crypto"]),
    ("segment", &["core", "crypto"]),
    ("ingest", &["core", "crypto", "tls", "otlp", "catalog", "keys", "wal", "segment"]),
    ("query", &["core", "otlp"]),
    ("control", &["core", "crypto", "vault", "catalog", "keys"]), // crypto: tokens are made and looked up
    ("rebuild", &["core", "crypto", "vault", "catalog", "keys", "segment"]), // joins what outlives a catalog into one
    ("bench", &["core", "tls"]),                                  // it ships as shippers do
    ("testkit", &["core", "crypto", "vault", "wal"]), // the faulty disk and the scripted vault implement ports
];

/// Lines of code that a file may have before its tests.
const LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/logseal is two levels deep").to_owned()
}

fn manifest(folder: &Path) -> Table {
    fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest").parse().expect("TOML")
}

fn crates() -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(root().join("crates")).expect("crates");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    rust_files(&root().join("crates"), &mut files);
    rust_files(&root().join("benches"), &mut files);
    assert!(files.len() > 50, "the search finds the sources");
    files
}

#[test]
fn dependencies_between_crates_are_the_listed_ones() {
    let edges: BTreeMap<_, _> = EDGES.iter().copied().collect();
    for (name, folder) in crates() {
        let manifest = manifest(&folder);
        assert_eq!(manifest["package"]["name"].as_str(), Some(name.as_str()), "folder and crate have one name");
        let dependencies = manifest.get("dependencies").and_then(|table| table.as_table()).cloned().unwrap_or_default();
        let ours: BTreeSet<_> = dependencies.keys().filter_map(|key| key.strip_prefix("logseal-")).collect();
        assert!(!ours.contains("testkit"), "{name}: the testkit is for development only");
        if let Some(short) = name.strip_prefix("logseal-") {
            let allowed = edges.get(short).unwrap_or_else(|| panic!("{name} is not in the table of edges"));
            for dependency in ours {
                assert!(allowed.contains(&dependency), "{name} must not depend on logseal-{dependency}");
            }
        }
    }
}

#[test]
fn heavy_dependencies_stay_in_their_crates() {
    for (dependency, owners) in
        [("datafusion", &["logseal-query"][..]), ("sqlx", &["logseal-catalog"]), ("aws-lc-rs", &["logseal-vault"])]
    {
        for (name, folder) in crates() {
            let used = manifest(&folder).get("dependencies").is_some_and(|table| table.get(dependency).is_some());
            assert!(!used || owners.contains(&name.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints_and_every_dependency_has_a_reason() {
    for (name, folder) in crates() {
        assert_eq!(manifest(&folder)["lints"]["workspace"].as_bool(), Some(true), "{name}");
    }
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest");
    let table =
        text.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("a table");
    for line in
        table.lines().filter(|line| line.contains(" = ") && !line.starts_with("logseal-") && !line.starts_with('#'))
    {
        assert!(line.contains(" # "), "say why it is there: {line}");
    }
}

#[test]
fn unsafe_code_is_in_the_allocator_alone() {
    for file in all_rust_files().iter().filter(|file| !file.ends_with("house.rs")) {
        let text = fs::read_to_string(file).expect("a source file");
        let expected = file.ends_with("logseal-alloc/src/lib.rs");
        assert_eq!(text.contains("unsafe_code"), expected, "{}: the lint is the workspace's", file.display());
    }
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest");
    assert!(text.contains("\nunsafe_code = \"deny\""), "what is expected nowhere is refused");
}

#[test]
fn files_begin_with_their_purpose_are_ascii_and_not_too_long() {
    for file in all_rust_files() {
        let text = fs::read_to_string(&file).expect("a source file");
        let shown = file.display();
        assert!(text.starts_with("//! "), "{shown}: begin with a `//!` line");
        assert!(text.is_ascii(), "{shown}: write non-ASCII characters as escapes");
        let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        let is_test = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        assert!(is_test || code <= LINES, "{shown}: {code} lines before its tests");
        let stem = file.file_stem().expect("a name").to_string_lossy();
        assert!(
            !["utils", "util", "helpers", "common", "misc"].contains(&stem.as_ref()),
            "{shown}: name what it holds"
        );
    }
}

#[test]
fn tests_are_neither_ignored_nor_expected_to_panic() {
    for file in all_rust_files().iter().filter(|file| !file.ends_with("house.rs")) {
        let text = fs::read_to_string(file).expect("a source file");
        for word in ["#[ignore", "should_panic"] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn every_folder_of_test_data_says_where_it_comes_from() {
    for folder in ["testdata", "testdata/real", "testdata/bench", "testdata/otlp"] {
        for entry in fs::read_dir(root().join(folder)).expect("test data") {
            let path = entry.expect("an entry").path();
            let described = !path.is_dir() || path.ends_with("real") || path.join("README.md").is_file();
            assert!(described, "{} has no README.md", path.display());
        }
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let is_source = |file: &&PathBuf| file.components().any(|part| part.as_os_str() == "src");
    let sources: String = all_rust_files()
        .iter()
        .filter(is_source)
        .map(|file| fs::read_to_string(file).expect("a source file"))
        .collect();
    for file in ["deploy/prometheus/alerts.yaml", "deploy/grafana/dashboard.json"] {
        let text = fs::read_to_string(root().join(file)).expect("a file of the deployment");
        let words = text.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric());
        let names: BTreeSet<_> = words.filter(|word| word.starts_with("logseal_")).collect();
        assert!(names.len() > 15, "{file}: the search finds the metrics");
        for name in names {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let metric = format!("\"{}\"", series.unwrap_or(name));
            assert!(sources.contains(&metric), "{file}: no metric is called {metric}");
        }
    }
}

/// Names and versions of the crates of `Cargo.lock`.
fn locked() -> BTreeSet<(String, String)> {
    let lock: Table = fs::read_to_string(root().join("Cargo.lock")).expect("a lock file").parse().expect("TOML");
    let text = |package: &toml::Value, key: &str| package[key].as_str().expect("a text").to_owned();
    let packages = lock["package"].as_array().expect("packages");
    packages.iter().map(|package| (text(package, "name"), text(package, "version"))).collect()
}

#[test]
fn libraries_of_the_cryptographic_bill_are_those_of_the_lock_file() {
    let text = fs::read_to_string(root().join("deploy/CRYPTOGRAPHY.md")).expect("a document");
    // `name` 1.2.3
    let parts: Vec<_> = text.split('`').collect();
    let mut stated: Vec<(String, String)> = Vec::new();
    for pair in parts[1..].windows(2).step_by(2) {
        let version = pair[1].strip_prefix(' ').and_then(|rest| rest.split([' ', ',', ')', '\n']).next());
        let version = version.filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        stated.extend(version.map(|version| (pair[0].to_owned(), version.to_owned())));
    }
    assert!(stated.len() > 15, "the search finds the libraries: {stated:?}");

    let text = fs::read_to_string(root().join("deploy/cbom.json")).expect("a document");
    let bill: Value = serde_json::from_str(&text).expect("JSON");
    let field = |of: &Value, key: &str| of[key].as_str().expect("a text").to_owned();
    let components = bill["components"].as_array().expect("components");
    for library in components.iter().filter(|component| component["type"] == "library") {
        let (name, version) = (field(library, "name"), field(library, "version"));
        assert_eq!(field(library, "purl"), format!("pkg:cargo/{name}@{version}"));
        assert_eq!(field(library, "bom-ref"), format!("lib/{name}@{version}"));
        stated.push((name, version));
    }
    let properties = components.iter().filter_map(|component| component["properties"].as_array()).flatten();
    for property in properties.filter(|property| property["name"] == "logseal:library") {
        let value = field(property, "value");
        let (name, version) = value.split_once(' ').expect("a name and a version");
        stated.push((name.to_owned(), version.to_owned()));
    }
    let program = &bill["metadata"]["component"];
    stated.push((field(program, "name"), field(program, "version")));

    let locked = locked();
    for (name, version) in stated {
        assert!(locked.contains(&(name.clone(), version.clone())), "Cargo.lock has no {name} {version}");
    }
}
