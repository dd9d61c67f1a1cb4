//! What a place in the schema wants, in the few shapes that our model has.

use serde_json::{Map, Value as Json};

/// What may stand at a place: one of the words, or one of the kinds.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) words: Vec<&'a str>,
    pub(super) kinds: Vec<Kind<'a>>,
    /// Whether nothing, or `null`, may stand there.
    pub(super) nullable: bool,
    /// Whether it is a secret: then a text is refused in words of its own.
    pub(super) secret: bool,
    example: Option<&'a Json>,
}

/// A kind of value.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    Text {
        format: Option<&'a str>,
    },
    Integer {
        min: f64,
        max: Option<f64>,
    },
    Number {
        min: f64,
        max: Option<f64>,
    },
    Truth,
    List(&'a Json),
    /// A map from names that the user chooses.
    Map(&'a Json),
    Section(Section<'a>),
}

/// A map with known keys.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// Its name in the schema; the whole has none.
    pub(super) name: &'a str,
    pub(super) properties: &'a Map<String, Json>,
    pub(super) required: Vec<&'a str>,
    /// Whether exactly one of the keys is wanted.
    pub(super) exactly_one: bool,
}

impl<'a> Wanted<'a> {
    /// What `schema`, a part of `root`, wants.
    pub(super) fn of(root: &'a Json, schema: &'a Json) -> Self {
        let mut wanted = Self::default();
        wanted.add(root, schema, "");
        wanted
    }

    fn add(&mut self, root: &'a Json, schema: &'a Json, name: &'a str) {
        let examples = schema["examples"].as_array().and_then(|examples| examples.first());
        let default = schema.get("default").filter(|default| default.is_string() || default.is_number());
        self.example = self.example.or(default).or(examples);
        let format = schema["format"].as_str();
        self.secret |= format == Some("tidegate-secret");
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.add(root, &root["$defs"][name], name);
        }
        for either in ["anyOf", "oneOf"] {
            for schema in schema[either].as_array().into_iter().flatten() {
                self.add(root, schema, name);
            }
        }
        if let Some(word) = schema["const"].as_str() {
            return self.words.push(word);
        }
        if let Some(words) = schema["enum"].as_array() {
            return self.words.extend(words.iter().filter_map(Json::as_str));
        }
        let types = match &schema["type"] {
            Json::String(one) => vec![one.as_str()],
            Json::Array(several) => several.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        for kind in types {
            let min = schema["minimum"].as_f64().unwrap_or(0.0);
            let max = schema["maximum"].as_f64().or(match format {
                Some("uint32") => Some(f64::from(u32::MAX)),
                Some("uint16") => Some(f64::from(u16::MAX)),
                Some("uint8") => Some(f64::from(u8::MAX)),
                // Far more than anything that is counted here, and exact in a double.
                Some("uint" | "uint64") => Some(f64::from(u32::MAX)),
                _ => None,
            });
            match kind {
                "null" => self.nullable = true,
                "string" => self.kinds.push(Kind::Text { format }),
                // What our own formats read, they read from a number's text as well.
                "integer" if format.is_some_and(|format| format.starts_with("tidegate-")) => {}
                "integer" => self.kinds.push(Kind::Integer { min, max }),
                "number" => self.kinds.push(Kind::Number { min, max }),
                "boolean" => self.kinds.push(Kind::Truth),
                "array" => self.kinds.push(Kind::List(&schema["items"])),
                "object" => self.kinds.push(match schema["properties"].as_object() {
                    Some(properties) => Kind::Section(Section {
                        name,
                        properties,
                        required: schema["required"]
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(Json::as_str)
                            .collect(),
                        exactly_one: schema["maxProperties"] == 1,
                    }),
                    None => Kind::Map(&schema["additionalProperties"]),
                }),
                _ => {}
            }
        }
    }

    /// The section that is wanted, if one is.
    pub(super) fn section(&self) -> Option<&Section<'a>> {
        self.kinds.iter().find_map(|kind| match kind {
            Kind::Section(section) => Some(section),
            _ => None,
        })
    }

    /// What the values of a map shall be, if one is wanted.
    pub(super) fn map(&self) -> Option<&'a Json> {
        self.kinds.iter().find_map(|kind| match kind {
            Kind::Map(values) => Some(*values),
            _ => None,
        })
    }

    /// What the items of a list shall be, if one is wanted.
    pub(super) fn list(&self) -> Option<&'a Json> {
        self.kinds.iter().find_map(|kind| match kind {
            Kind::List(items) => Some(*items),
            _ => None,
        })
    }

    /// Whether a value on the line of its key may be wanted.
    pub(super) fn scalar(&self) -> bool {
        self.kinds.iter().any(|kind| match kind {
            Kind::Text { .. } | Kind::Integer { .. } | Kind::Number { .. } | Kind::Truth => true,
            Kind::List(_) | Kind::Map(_) | Kind::Section(_) => false,
        })
    }

    /// Whether one of a few words is wanted and nothing else.
    pub(super) fn only_words(&self) -> bool {
        self.kinds.is_empty() && !self.words.is_empty()
    }

    /// What is wanted, as a noun.
    pub(super) fn name(&self) -> &'static str {
        match self.kinds.first() {
            None => "one of the words for this key",
            Some(Kind::Text { .. }) => "a text",
            Some(Kind::Integer { .. }) => "a whole number",
            Some(Kind::Number { .. }) => "a number",
            Some(Kind::Truth) => "true or false",
            Some(Kind::List(_)) => "a list",
            Some(Kind::Map(_)) => "a map from names",
            Some(Kind::Section(_)) => "a section with keys",
        }
    }

    /// What to write instead of a value of another shape.
    pub(super) fn remedy(&self) -> String {
        let words = self.words.join(", ");
        match (self.kinds.first(), words.as_str()) {
            (None, words) => format!("write one of {words}"),
            (Some(_), "") => format!("write {}", self.example()),
            (Some(_), words) => format!("write {}, or {words}", self.example()),
        }
    }

    /// An example of what is wanted.
    pub(super) fn example(&self) -> String {
        match (self.kinds.first(), self.example) {
            (Some(Kind::List(items)), _) => match items["examples"][0].as_str() {
                Some(item) => format!("[{item}]"),
                None => "a list, an item a line after a -".into(),
            },
            (Some(Kind::Map(_)), _) => "names and what they stand for, one a line, indented".into(),
            (Some(Kind::Section(section)), _) => {
                let keys: Vec<&str> = section.properties.keys().map(String::as_str).collect();
                format!("its keys below it, indented: {}", keys.join(", "))
            }
            (_, Some(Json::String(example))) => example.clone(),
            (_, Some(example)) => example.to_string(),
            (Some(Kind::Integer { .. } | Kind::Number { .. }), None) => "a number".into(),
            (Some(Kind::Truth), None) => "true or false".into(),
            (Some(Kind::Text { .. }) | None, None) => "a text".into(),
        }
    }
}
