//! Secrets in a configuration: it says where they are, never what they are.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tidegate::Secret;

/// Most bytes of a secret. Default: 64 KiB.
const MOST_BYTES: u64 = 64 << 10;

/// Where a secret is: `{ env: NAME }` or `{ file: PATH }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretSetting {
    /// In an environment variable.
    Env(String),
    /// In a file; a line end at its end does not count.
    File(PathBuf),
}

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// The variable is not set, or is no text.
    #[error("the environment variable {0} is not set; set it, or name another one")]
    Env(String),
    /// The file can not be read.
    #[error("the secret file {} can not be read: {why}; name a file of text that the gateway's user may read", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is nothing in it.
    #[error("the secret from {0} is empty; put it there")]
    Empty(String),
}

impl SecretSetting {
    /// Fetches the secret; a relative path begins at `base`.
    ///
    /// # Errors
    /// [`NoSecret`] when it is not there or empty. It never holds a part of a secret.
    pub fn read(&self, base: &Path) -> Result<Secret, NoSecret> {
        let (text, place) = match self {
            Self::Env(name) => (
                std::env::var(name).map_err(|_| NoSecret::Env(name.clone()))?,
                format!("the variable {name}"),
            ),
            Self::File(path) => {
                let path = base.join(path);
                let mut text = String::new();
                let read = std::fs::File::open(&path)
                    .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
                read.map_err(|error| NoSecret::File { path: path.clone(), why: error.to_string() })?;
                (text, format!("the file {}", path.display()))
            }
        };
        match text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)) {
            "" => Err(NoSecret::Empty(place)),
            secret => Ok(Secret::new(secret)),
        }
    }
}

impl JsonSchema for SecretSetting {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A secret, by the place where it is: { env: NAME } or { file: PATH }.",
            "type": "object",
            "format": "tidegate-secret",
            "properties": {
                "env": { "type": "string", "description": "The name of an environment variable." },
                "file": { "type": "string", "description": "The path of a file." },
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{problem::Problems, structure, tree};

    /// What is wrong with `text` where a secret is wanted.
    fn problems(text: &str) -> String {
        let schema = schemars::schema_for!(SecretSetting).to_value();
        let mut problems = Vec::new();
        let node = tree::parse(text, &mut problems).unwrap();
        structure::check(&schema, &node, &mut problems);
        Problems::new("x.yaml", text, problems).to_string()
    }

    #[test]
    fn a_secret_in_plain_sight_is_refused_and_not_repeated() {
        let said = problems("hunter2");
        assert!(said.contains("{ env: NAME }") && !said.contains("hunter2"), "{said}");
        assert_eq!(problems("{ env: NAME }"), "");
        assert_eq!(problems("{ file: secret.txt }"), "");
        for text in ["{}", "{ env: A, file: B }", "{ value: x }", "[x]"] {
            assert_ne!(problems(text), "", "{text}");
        }
    }

    #[test]
    fn secrets_are_read_from_files_and_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "hunter2\r\n").unwrap();
        std::fs::write(directory.path().join("empty"), "\n").unwrap();
        let setting: SecretSetting = serde_json::from_str(r#"{ "file": "secret" }"#).unwrap();
        let secret = setting.read(directory.path()).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(
            serde_json::to_string(&setting).unwrap(),
            r#"{"file":"secret"}"#,
            "the place, not the secret"
        );
        assert!(!format!("{secret:?} {secret} {setting:?}").contains("hunter2"));
        let empty = SecretSetting::File("empty".into()).read(directory.path());
        assert!(matches!(empty, Err(NoSecret::Empty(_))));
        let missing = SecretSetting::File("missing".into()).read(directory.path());
        assert!(matches!(missing, Err(NoSecret::File { .. })));
    }

    #[test]
    fn secrets_are_read_from_the_environment() {
        // A variable that every test has; setting one would race with other tests.
        let secret = SecretSetting::Env("CARGO_PKG_NAME".into()).read(Path::new("")).unwrap();
        assert_eq!(secret.expose(), "tidegate-gateway");
        let missing = SecretSetting::Env("TIDEGATE_NO_SUCH_VARIABLE".into()).read(Path::new(""));
        assert_eq!(missing, Err(NoSecret::Env("TIDEGATE_NO_SUCH_VARIABLE".into())));
    }
}
