//! YAML as a tree that knows where everything stands. Aliases and merge keys are resolved here, within a budget, so that
//! nobody else meets them.

use std::{collections::HashMap, ops::Range};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::problem::{Problem, quoted};

/// Most bytes of a configuration. Default: 1 MiB.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// Most values in a configuration, each alias counted as what it stands for. Default: 100000.
const MOST_NODES: usize = 100_000;
/// Deepest nesting, aliases counted as what they stand for. Default: 64.
const MOST_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
    /// Values in it, itself included.
    nodes: usize,
    /// Levels in it, itself included.
    depth: usize,
}

/// What a value is. What a plain scalar means depends on what is wanted, so it stays a text.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Written without quotes: a number, a word, or nothing at all.
    Plain(String),
    /// Written in quotes or as a block.
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: Node,
}

impl Node {
    fn new(span: Range<usize>, value: Value) -> Self {
        let (nodes, depth) = match &value {
            Value::Plain(_) | Value::Quoted(_) => (1, 1),
            Value::List(items) => sizes(items.iter()),
            Value::Map(entries) => sizes(entries.iter().map(|entry| &entry.value)),
        };
        Self { span, value, nodes, depth }
    }

    /// The entry of a key, if this is a map that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a key, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Plain(_) | Value::Quoted(_) | Value::List(_) => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => &[],
        }
    }

    /// The text of a scalar that is there.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(_) if self.is_null() => None,
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether nothing is written, or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

fn sizes<'a>(children: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    children.fold((1, 1), |(nodes, depth), child| (nodes + child.nodes, depth.max(child.depth + 1)))
}

/// Reads a document. What is wrong with it goes to `problems`; none when nothing can be made of it.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    if text.len() > MOST_BYTES {
        problems.push(Problem::error(
            format!("a configuration of {} bytes is too large", text.len()),
            format!("write at most {MOST_BYTES} bytes"),
        ));
        return None;
    }
    let mut builder = Builder { problems, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0 };
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MOST_DEPTH,
        block_nesting_limit: MOST_DEPTH,
    };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(wrong) => {
                let at = offset(text, wrong.marker());
                let problem = Problem::error(
                    format!("not YAML: {}", wrong.info()),
                    if wrong.info().contains("tabs") {
                        "indent with spaces"
                    } else {
                        "look at this line and what is open above it: brackets, quotes, indentation"
                    },
                );
                builder.problems.push(problem.at(&(at..at + 1)));
                return None;
            }
        };
        let span = offset(text, &span.start)..offset(text, &span.end);
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents > 1 {
                let problem = Problem::error(
                    "a second document begins here",
                    "a configuration is one document; remove the others",
                );
                builder.problems.push(problem.at(&span));
                return None;
            }
        }
        builder.take(event, span)?;
    }
    builder.root.or_else(|| Some(Node::new(0..0, Value::Plain(String::new()))))
}

fn offset(text: &str, marker: &Marker) -> usize {
    marker.byte_offset().unwrap_or(text.len()).min(text.len())
}

/// What is being read: open lists and maps, innermost last.
struct Builder<'a> {
    problems: &'a mut Vec<Problem>,
    open: Vec<Open>,
    /// By the parser's number of the anchor.
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
}

struct Open {
    start: Range<usize>,
    anchor: usize,
    collection: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// Where each key stands in `entries`.
    places: HashMap<String, usize>,
    merged: Vec<Entry>,
    /// The key whose value comes next.
    key: Option<(String, Range<usize>)>,
}

impl Builder<'_> {
    /// Takes the next event; none when reading on makes no sense.
    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = match (style, self.tag(tag.as_deref(), &span)) {
                    (ScalarStyle::Plain, Tagged::No) => Value::Plain(text.into_owned()),
                    (_, Tagged::No | Tagged::Text) => Value::Quoted(text.into_owned()),
                };
                self.put(Node::new(span, value), anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &span);
                self.open.push(Open { start: span, anchor, collection: Collection::List(Vec::new()) });
                Some(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &span);
                self.open.push(Open { start: span, anchor, collection: Collection::Map(OpenMap::default()) });
                Some(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { start, anchor, collection } = self.open.pop()?;
                let value = match collection {
                    Collection::List(items) => Value::List(items),
                    Collection::Map(mut map) => {
                        for entry in std::mem::take(&mut map.merged) {
                            if !map.places.contains_key(&entry.key) {
                                map.add(entry);
                            }
                        }
                        Value::Map(map.entries)
                    }
                };
                self.put(Node::new(start.start..span.end.max(start.end), value), anchor, 1)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = node.clone();
                    let nodes = node.nodes;
                    self.put(node, 0, nodes)
                }
                None => {
                    let problem =
                        Problem::error("an alias stands inside of what it stands for", "write the value out");
                    self.problems.push(problem.at(&span));
                    None
                }
            },
            Event::UnresolvedAlias(name) => {
                let problem = Problem::error(
                    format!("{} stands for nothing", quoted(&format!("*{name}"))),
                    "put an anchor with & before a value above, or quotes around it if a text is meant",
                );
                self.problems.push(problem.at(&span));
                self.put(Node::new(span, Value::Plain(String::new())), 0, 1)
            }
            _ => Some(()),
        }
    }

    /// Puts a finished value where it belongs. `added` counts the values that were not counted yet.
    fn put(&mut self, node: Node, anchor: usize, added: usize) -> Option<()> {
        self.nodes += added;
        if self.nodes > MOST_NODES || self.open.len() + node.depth > MOST_DEPTH {
            let problem = Problem::error(
                "the configuration is too large or too deep here, with its aliases written out",
                format!("write at most {MOST_NODES} values, {MOST_DEPTH} levels deep"),
            );
            self.problems.push(problem.at(&node.span));
            return None;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(node),
            Some(Collection::List(items)) => items.push(node),
            Some(Collection::Map(map)) => match map.key.take() {
                None => match node.value {
                    Value::Plain(text) | Value::Quoted(text) => map.key = Some((text, node.span)),
                    Value::List(_) | Value::Map(_) => {
                        let problem = Problem::error(
                            "a key is a list or a map",
                            "a key is a word; a text that begins with { or [ needs quotes",
                        );
                        self.problems.push(problem.at(&node.span));
                        return None;
                    }
                },
                Some((name, _)) if name == "<<" => match merge(node) {
                    Ok(more) => map.merged.extend(more),
                    Err(span) => {
                        let problem =
                            Problem::error("`<<` merges a map, or a list of maps", "write <<: *name");
                        self.problems.push(problem.at(&span));
                    }
                },
                Some((key, key_span)) => match map.places.get(&key) {
                    Some(first) => {
                        let problem =
                            Problem::error(format!("{} is given twice", quoted(&key)), "remove one of them");
                        let first = &map.entries[*first].key_span;
                        self.problems.push(problem.at(&key_span).see(first, "first given here"));
                    }
                    None => map.add(Entry { key, key_span, value: node }),
                },
            },
        }
        Some(())
    }

    fn tag(&mut self, tag: Option<&Tag>, span: &Range<usize>) -> Tagged {
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None => Tagged::No,
            Some((_, Some("str"))) => Tagged::Text,
            Some((_, Some("int" | "float" | "bool" | "null" | "seq" | "map"))) => Tagged::No,
            Some((tag, _)) => {
                let problem = Problem::error(
                    format!("the tag {} means nothing here", quoted(&tag.original())),
                    "remove it",
                );
                self.problems.push(problem.at(span));
                Tagged::No
            }
        }
    }
}

impl OpenMap {
    fn add(&mut self, entry: Entry) {
        self.places.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
    }
}

/// What a tag says about a scalar.
enum Tagged {
    No,
    Text,
}

/// What `<<: value` adds.
fn merge(node: Node) -> Result<Vec<Entry>, Range<usize>> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => {
            let mut all = Vec::new();
            for item in items {
                match item.value {
                    Value::Map(entries) => all.extend(entries),
                    Value::Plain(_) | Value::Quoted(_) | Value::List(_) => return Err(item.span),
                }
            }
            Ok(all)
        }
        Value::Plain(_) | Value::Quoted(_) => Err(node.span),
    }
}
