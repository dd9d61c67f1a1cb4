//! The JSON Schema of the configuration, made from the typed model: what editors complete from and what files are checked
//! against are one.

use std::sync::LazyLock;

use serde_json::Value;

use super::model::Config;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".into(), "The configuration of the gateway `tidegate`".into());
    schema.to_value()
});

/// The schema as a value.
pub(super) fn value() -> &'static Value {
    &SCHEMA
}

/// The JSON Schema (draft 2020-12) of a configuration, as indented text.
pub fn schema() -> String {
    format!("{:#}\n", *SCHEMA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_its_dialect_and_describes_every_setting() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(schema["title"].is_string());
        let sections = schema["$defs"].as_object().unwrap().values().chain([&schema]);
        let mut settings = 0;
        for (key, setting) in sections.filter_map(|section| section["properties"].as_object()).flatten() {
            assert!(setting["description"].as_str().is_some_and(|text| !text.is_empty()), "{key}");
            settings += 1;
        }
        assert!(settings > 50, "{settings}");
    }
}
