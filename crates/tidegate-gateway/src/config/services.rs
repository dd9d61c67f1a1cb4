//! A file that lists services, in YAML: what a `file:` registry reads.

use std::{collections::BTreeMap, fmt};

use tidegate::registry::{Address, Instance, ServiceName};

use super::{
    problem::{Problem, Problems, quoted},
    suggest,
    tree::{self, Entry, Node, Value},
};

/// What may stand in an instance.
const KEYS: [&str; 6] = ["address", "id", "version", "weight", "zone", "metadata"];

/// Reads services and their instances, each an address or a section that has one:
/// `orders: [10.0.0.7:9001, { address: 10.0.0.8:9001, weight: 2, zone: a }]`. Without an id the address is the id.
///
/// # Errors
/// All that is wrong, each with its line and column, and the remedy.
pub(crate) fn instances(text: &str) -> Result<Vec<Instance>, String> {
    let mut problems = Vec::new();
    let root = tree::parse(text, &mut problems);
    let mut instances = Vec::new();
    match &root {
        Some(root) if root.is_null() => {}
        Some(Node { value: Value::Map(services), .. }) => {
            for entry in services {
                service(entry, &mut instances, &mut problems);
            }
        }
        Some(other) => {
            let problem = Problem::error("this is no list of services", "write orders: [10.0.0.7:9001]");
            problems.push(problem.at(&other.span));
        }
        None => {}
    }
    if problems.is_empty() {
        return Ok(instances);
    }
    let problems = Problems::new("", text, problems);
    let lines = problems.iter().map(|problem| {
        let (line, column) = problem.span.as_ref().map_or((1, 1), |at| problems.line_and_column(at.start));
        let remedy = if problem.remedy.is_empty() { "" } else { "; " };
        format!("line {line}, column {column}: {}{remedy}{}", problem.message, problem.remedy)
    });
    Err(lines.take(MOST_TOLD).collect::<Vec<_>>().join(" · "))
}

/// The most problems that are told. Default: 5.
const MOST_TOLD: usize = 5;

fn service(entry: &Entry, instances: &mut Vec<Instance>, problems: &mut Vec<Problem>) {
    let name = match ServiceName::new(&entry.key) {
        Ok(name) => name,
        Err(wrong) => return problems.push(of_error(wrong).at(&entry.key_span)),
    };
    if !matches!(entry.value.value, Value::List(_)) && !entry.value.is_null() {
        let problem = Problem::error("the instances of a service are a list", "write [10.0.0.7:9001]");
        return problems.push(problem.at(&entry.value.span));
    }
    for item in entry.value.items() {
        if let Some(found) = instance(&name, item, problems) {
            instances.push(found);
        }
    }
}

fn instance(service: &ServiceName, item: &Node, problems: &mut Vec<Problem>) -> Option<Instance> {
    let whole = matches!(item.value, Value::Map(_));
    let at = if whole { item.get("address") } else { Some(item) };
    let before = problems.len();
    for entry in item.entries().iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        let remedy = suggest::remedy(&entry.key, "key", KEYS);
        let problem = Problem::error(format!("there is no key {} here", quoted(&entry.key)), remedy);
        problems.push(problem.at(&entry.key_span));
    }
    let Some(text) = at.and_then(Node::text) else {
        let problem = Problem::error("an instance has no address", "write [SCHEME://]HOST:PORT");
        problems.push(problem.at(&item.span));
        return None;
    };
    let address = match Address::parse(text) {
        Ok(address) => address,
        Err(wrong) => {
            problems.push(of_error(wrong).at(&at?.span));
            return None;
        }
    };
    let text = |key: &str| item.get(key).and_then(Node::text);
    let id = text("id").unwrap_or(address.as_str()).to_owned();
    let mut instance = Instance::new(service.clone(), id, address);
    if let Some(version) = text("version") {
        instance = instance.version(version);
    }
    if let Some(zone) = text("zone") {
        instance = instance.zone(zone);
    }
    if let Some(node) = item.get("weight").filter(|node| !node.is_null()) {
        match node.text().and_then(|text| text.parse().ok()) {
            Some(weight) => instance = instance.weight(weight),
            None => {
                let what = node.text().map_or("this".into(), quoted);
                let problem = Problem::error(format!("{what} is no weight"), "write a whole number, like 2");
                problems.push(problem.at(&node.span));
            }
        }
    }
    let metadata = item.get("metadata").map_or(&[][..], Node::entries);
    instance.metadata = metadata
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.text().unwrap_or_default().to_owned()))
        .collect::<BTreeMap<_, _>>();
    (problems.len() == before).then_some(instance)
}

fn of_error(wrong: impl fmt::Display) -> Problem {
    let wrong = wrong.to_string();
    let (message, remedy) = wrong.split_once("; ").unwrap_or((&wrong, ""));
    Problem::error(message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_addresses_or_sections() {
        let text = "orders:\n  - 10.0.0.7:9001\n  - { address: \"https://h\", id: b, weight: 2, zone: eu, version: 2.1, \
                    metadata: { rack: 7 } }\nempty:\n";
        let found = instances(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].id.as_str(), found[0].weight), ("10.0.0.7:9001", 1));
        let b = &found[1];
        assert_eq!((b.id.as_str(), b.weight, b.version.as_str()), ("b", 2, "2.1"));
        assert_eq!((b.zone.as_deref(), b.metadata["rack"].as_str()), (Some("eu"), "7"));
        assert_eq!(instances("").unwrap(), []);
        assert_eq!(instances("{\"a\": [\"h:1\"]}").unwrap().len(), 1, "JSON is YAML");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_the_remedy() {
        for (text, told) in [
            ("orders: 10.0.0.7:9001", "line 1, column 9: the instances of a service are a list; write ["),
            (
                "orders:\n  - nowhere",
                "line 2, column 5: \"nowhere\" is no address: the port is missing; write",
            ),
            ("orders:\n  - { addres: h:1 }", "line 2, column 7: there is no key `addres` here; did you mean"),
            ("orders:\n  - { address: h:1, weight: -1 }", "line 2, column 29: `-1` is no weight; write a"),
            ("[a]", "line 1, column 1: this is no list of services; write orders: ["),
            ("a: [", "line 1, column "),
        ] {
            let why = instances(text).unwrap_err();
            assert!(why.contains(told), "{text}: {why}");
        }
    }
}
