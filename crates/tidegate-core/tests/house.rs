//! The rules of the house: imports go down only, core is pure, and the library names no foreign client.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The crates from the ground up; one may depend on those of lower floors only.
const FLOORS: [(&str, u32); 6] = [
    ("tidegate-core", 0),
    ("tidegate", 1),
    ("tidegate-etcd", 2),
    ("tidegate-redis", 2),
    ("tidegate-gateway", 3),
    ("tidegate-benches", 4),
];

/// What a pure decision cannot need: clocks, threads, IO, dice, shared state.
const IMPURE: [&str; 15] = [
    "time::Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "std::thread",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::sync",
    "thread_local!",
    "RandomState",
    "rand::",
    "async fn",
    "println!",
];

fn floor(name: &str) -> Option<u32> {
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// The normal dependencies of every workspace crate, by package name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo runs a test, so cargo is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies").iter();
            (name(package), all.filter(|dependency| dependency["kind"].is_null()).map(name).collect())
        })
        .collect()
}

#[test]
fn imports_between_the_crates_go_down_only() {
    let dependencies = dependencies();
    let known: BTreeSet<_> = FLOORS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<_> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(known, found, "every crate of the workspace has a floor in this test");
    for (upper, lowers) in &dependencies {
        for lower in lowers {
            let Some(below) = floor(lower) else { continue };
            assert!(Some(below) < floor(upper), "{upper} depends on {lower}, which is not below it");
        }
    }
}

#[test]
fn core_depends_on_nothing() {
    assert_eq!(dependencies()["tidegate-core"], BTreeSet::new());
}

#[test]
fn the_library_names_no_foreign_client() {
    let library = &dependencies()["tidegate"];
    for foreign in ["redis", "etcd-client", "tonic", "prost", "reqwest", "hyper", "hyper-util", "axum"] {
        assert!(
            !library.contains(foreign),
            "tidegate depends on {foreign}; that belongs to a room of its own"
        );
    }
}

#[test]
fn core_reads_no_clock_does_no_io_and_rolls_no_dice() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.len() > 5, "the sources of core are where this test looks");
    let found: Vec<_> = sources.iter().flat_map(|path| impurities(path)).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_search_for_impurities_finds_them_in_nested_imports_too() {
    assert_eq!(named("use std::{fmt, time::{Duration, Instant}};"), ["time::Instant"]);
    assert_eq!(named("use std::{\n    collections::BTreeMap,\n    thread,\n};"), ["std::thread"]);
    assert_eq!(named("let now = std::time::SystemTime::now();"), ["SystemTime"]);
    assert_eq!(named("use std::time::Duration; // an Instant of ours\nuse crate::Instant;"), [""; 0]);
    assert_eq!(named("#[cfg(test)]\nmod tests {\n    use std::thread;\n}"), [""; 0]);
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("core's sources can be read");
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn impurities(path: &Path) -> Vec<String> {
    let source = fs::read_to_string(path).expect("a source is text");
    named(&source).into_iter().map(|what| format!("{} names {what}", path.display())).collect()
}

/// Which of [`IMPURE`] a source names outside its tests and comments.
fn named(source: &str) -> Vec<&'static str> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: Vec<_> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let imports = code.split(';').filter_map(|item| item.trim_start().strip_prefix("use ")).flat_map(flatten);
    let text = imports.fold(code.clone(), |text, import| text + "\n" + &import);
    IMPURE.into_iter().filter(|what| text.contains(what)).collect()
}

/// The paths of an import: `std::{fmt, time::{A, B}}` is `std::fmt`, `std::time::A`, `std::time::B`.
fn flatten(import: &str) -> Vec<String> {
    let import = import.trim();
    let Some((prefix, rest)) = import.split_once('{') else { return vec![import.to_owned()] };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for character in inner.chars() {
        match character {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                depth += i32::from(character == '{') - i32::from(character == '}');
                parts.last_mut().expect("there is a first part").push(character);
            }
        }
    }
    parts.iter().flat_map(|part| flatten(part)).map(|path| format!("{}{path}", prefix.trim())).collect()
}
