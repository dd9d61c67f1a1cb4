//! `tidegate check` and `tidegate schema`, as a user runs them.

use std::process::{Command, Output};

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().expect("the binary runs")
}

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_example_is_valid_with_exit_code_0() {
    for name in ["tidegate.yaml", "minimal.yaml", "grpc.yaml", "limits.yaml"] {
        let output = tidegate(&["check", &example(name)]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("is valid") && said.contains("upstream"), "{said}");
    }
}

#[test]
fn a_wrong_file_says_every_error_plainly_with_exit_code_2() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tidegate.yaml");
    std::fs::write(&file, "upstreams: { a: { endpoints: [h:1], timeout: 5 } }\nroutes: [{ upstream: b }]\n")
        .unwrap();
    let output = tidegate(&["check", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["tidegate.yaml:1:31", "tidegate.yaml:1:46", "tidegate.yaml:2:22", "has 3 errors"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains('\u{1b}'), "no colours into a pipe: {said}");
}

#[test]
fn more_limits_on_a_route_than_are_decided_at_once_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tidegate.yaml");
    for (limits, code) in [(8, 0), (9, 2)] {
        let names: Vec<String> = (0..limits).map(|n| format!("l{n}")).collect();
        let rates: Vec<String> = names.iter().map(|name| format!("{name}: {{ rate: 1/s }}")).collect();
        let text = format!(
            "upstreams: {{ u: {{ endpoints: [http://127.0.0.1:9] }} }}\nlimits: {{ {} }}\nroutes: [{{ upstream: u, limits: [{}] }}]\n",
            rates.join(", "),
            names.join(", "),
        );
        std::fs::write(&file, text).unwrap();
        let output = tidegate(&["check", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("9 limits on one route, and at most 8"), code == 2, "{said}");
    }
}

#[test]
fn a_missing_file_is_exit_code_2_for_check_and_for_serve() {
    for args in [&["check", "no/such.yaml"][..], &["serve", "--config", "no/such.yaml"]] {
        let output = tidegate(args);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("no/such.yaml") && said.contains("there is no such file"), "{said}");
    }
}

#[test]
fn without_a_command_the_environment_still_names_the_file() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .env("TIDEGATE_CONFIG", "no/such.yaml")
        .output()
        .expect("the binary runs");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no/such.yaml"), "{said}");
}

#[test]
fn what_check_calls_valid_also_starts_as_far_as_the_log_goes() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tidegate.yaml");
    let text =
        "upstreams: { a: { endpoints: [http://h:1] } }\nroutes: [{ upstream: a }]\nlog: { level: loud }\n";
    std::fs::write(&file, text).unwrap();
    let output = tidegate(&["check", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`loud` is not a log filter"), "{said}");
}

#[test]
fn the_schema_is_json() {
    let output = tidegate(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["required"], serde_json::json!(["upstreams", "routes"]));
}
