//! Checks a tree against the schema and turns it into JSON: every unknown key, missing key and wrong value at once.

use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::{
    formats::Wrong,
    pending,
    problem::{Problem, quoted},
    scalar::Written,
    suggest,
    tree::{Entry, Node, Value},
    wanted::{Section, Wanted},
};

/// A setting: its name and where its key stands.
#[derive(Clone, Debug)]
struct Setting {
    /// Like `upstreams.orders.timeout`; the whole has none.
    path: String,
    /// Where to point when something in it is missing.
    name_span: Range<usize>,
}

impl Setting {
    fn below(&self, entry: &Entry) -> Self {
        let key = entry.key.escape_debug();
        let path = if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) };
        Self { path, name_span: entry.key_span.clone() }
    }

    fn item(&self, n: usize, item: &Node) -> Self {
        // A problem of the whole item is shown on its first character.
        Self { path: format!("{}[{n}]", self.path), name_span: item.span.start..item.span.start + 1 }
    }
}

/// Checks `node` against `schema`; the JSON is as the schema wants it if no problem was found.
pub(super) fn check(schema: &Json, node: &Node, problems: &mut Vec<Problem>) -> Json {
    let mut checker = Checker { schema, problems };
    let whole = Setting { path: String::new(), name_span: 0..1 };
    checker.value(&Wanted::of(schema, schema), node, &whole).unwrap_or(Json::Null)
}

struct Checker<'a> {
    schema: &'a Json,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn report(&mut self, setting: &Setting, problem: Problem) {
        self.problems.push(problem.of(setting.path.as_str()));
    }

    /// None when the value is as good as not given.
    fn value(&mut self, wanted: &Wanted<'_>, node: &Node, setting: &Setting) -> Option<Json> {
        if node.is_null() && !wanted.words.contains(&"null") {
            return self.nothing(wanted, setting);
        }
        match &node.value {
            Value::Plain(text) => self.scalar(wanted, node, text, Written::Plain, setting),
            Value::Quoted(text) => self.scalar(wanted, node, text, Written::Quoted, setting),
            Value::List(items) => match wanted.list() {
                Some(of) => {
                    let of = Wanted::of(self.schema, of);
                    let items = items.iter().enumerate();
                    let items = items.filter_map(|(n, item)| self.named(&of, item, &setting.item(n, item)));
                    Some(items.collect())
                }
                None => self.unfit(wanted, node, "a list", setting),
            },
            Value::Map(entries) => match (wanted.section(), wanted.map()) {
                (Some(section), _) => Some(self.section(section, entries, setting)),
                (None, Some(values)) => {
                    let values = Wanted::of(self.schema, values);
                    let entries = entries.iter().filter_map(|entry| {
                        let value = self.named(&values, &entry.value, &setting.below(entry))?;
                        Some((entry.key.clone(), value))
                    });
                    Some(Json::Object(entries.collect()))
                }
                (None, None) => self.unfit(wanted, node, "a section with keys", setting),
            },
        }
    }

    /// An item of a list, or the value of a name that the user chose: it can not be left out.
    fn named(&mut self, wanted: &Wanted<'_>, node: &Node, setting: &Setting) -> Option<Json> {
        if node.is_null() && wanted.section().is_some() {
            // So that its required keys are reported as missing.
            let section = wanted.section()?;
            return Some(self.section(section, &[], setting));
        }
        self.value(wanted, node, setting)
    }

    /// A key without a value: an empty section or list is as good as none; anything else was forgotten.
    fn nothing(&mut self, wanted: &Wanted<'_>, setting: &Setting) -> Option<Json> {
        if setting.path.is_empty() {
            let section = wanted.section()?;
            return Some(self.section(section, &[], setting));
        }
        let empty = wanted.section().is_some() || wanted.map().is_some() || wanted.list().is_some();
        if wanted.nullable || (empty && !wanted.scalar()) {
            return None;
        }
        let problem = Problem::error(
            "a value is missing",
            format!("write one, like {}, or remove the key", wanted.example()),
        );
        self.report(setting, problem.at(&setting.name_span));
        None
    }

    fn scalar(
        &mut self,
        wanted: &Wanted<'_>,
        node: &Node,
        text: &str,
        written: Written,
        setting: &Setting,
    ) -> Option<Json> {
        if wanted.words.contains(&text) {
            return Some(text.into());
        }
        let mut wrong = None;
        for kind in &wanted.kinds {
            match kind.read(text, written) {
                Ok(value) => return Some(value),
                Err(problem) => wrong = wrong.or(problem),
            }
        }
        match wrong {
            Some(Wrong { message, remedy }) => {
                let remedy = match wanted.words.as_slice() {
                    [] => remedy,
                    words => format!("{remedy}, or {}", words.join(", ")),
                };
                self.report(setting, Problem::error(message, remedy).at(&node.span));
                None
            }
            None if wanted.only_words() => {
                let remedy = suggest::remedy(text, "word", wanted.words.iter().copied());
                let problem = Problem::error(format!("{} is not known here", quoted(text)), remedy);
                self.report(setting, problem.at(&node.span));
                None
            }
            // A list of secrets too: what stands in its place is most likely one.
            None if wanted.secret || wanted.list().is_some_and(|of| Wanted::of(self.schema, of).secret) => {
                let problem = Problem::error(
                    "a secret does not stand in the configuration itself",
                    "write { env: NAME } for an environment variable or { file: PATH } for a file",
                );
                self.report(setting, problem.at(&node.span));
                None
            }
            None => self.unfit(wanted, node, &quoted(text), setting),
        }
    }

    fn unfit(&mut self, wanted: &Wanted<'_>, node: &Node, what: &str, setting: &Setting) -> Option<Json> {
        let problem = Problem::error(format!("{what} is not {}", wanted.name()), wanted.remedy());
        self.report(setting, problem.at(&node.span));
        None
    }

    fn section(&mut self, section: &Section<'_>, entries: &[Entry], setting: &Setting) -> Json {
        let mut object = Map::new();
        // Required keys that the user surely meant to give.
        let mut meant: Vec<&str> = Vec::new();
        for entry in entries {
            if let Some(schema) = section.properties.get(&entry.key) {
                let value = self.value(&Wanted::of(self.schema, schema), &entry.value, &setting.below(entry));
                match value {
                    Some(value) => {
                        object.insert(entry.key.clone(), value);
                    }
                    None if !entry.value.is_null() => meant.push(&entry.key),
                    None => {}
                }
            } else if let Some(problem) = pending::refusal(section.name, entry) {
                self.report(&setting.below(entry), problem);
                meant.extend(section.required.iter());
            } else {
                let keys = section.properties.keys().map(String::as_str);
                let few = self.problems.len() < suggest::MOST_SUGGESTED;
                let keys = keys.take(if few { usize::MAX } else { 0 });
                meant.extend(suggest::nearest(&entry.key, keys.clone()));
                let message = format!("there is no key {} here", quoted(&entry.key));
                let remedy = if few { suggest::remedy(&entry.key, "key", keys) } else { "remove it".into() };
                let problem = Problem::error(message, remedy);
                self.report(setting, problem.at(&entry.key_span));
            }
        }
        if section.exactly_one && object.len() != 1 {
            let keys: Vec<&str> = section.properties.keys().map(String::as_str).collect();
            let problem = Problem::error(
                format!("{} of {} are given", object.len(), keys.join(", ")),
                format!("give exactly one of {}", keys.join(", ")),
            );
            self.report(setting, problem.at(&setting.name_span));
        }
        for required in &section.required {
            if !object.contains_key(*required) && !meant.contains(required) {
                let schema = &section.properties[*required];
                let remedy = format!("add {required}: {}", Wanted::of(self.schema, schema).example());
                let empty = entries.iter().find(|entry| entry.key == *required);
                let (verb, span) = match empty {
                    Some(entry) => ("empty", &entry.key_span),
                    None => ("missing", &setting.name_span),
                };
                let problem = Problem::error(format!("`{required}` is {verb}"), remedy);
                self.report(setting, problem.at(span));
            }
        }
        Json::Object(object)
    }
}
