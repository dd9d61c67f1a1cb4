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
