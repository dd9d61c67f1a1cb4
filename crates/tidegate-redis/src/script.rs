//! A Lua script: sent by its hash, and whole to a server that does not know it.

use redis::Cmd;

/// A script.
pub(crate) struct Script {
    source: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// The command that runs it, with `keys`; the arguments come after.
    pub(crate) fn by_hash(&self, keys: &[&[u8]]) -> Cmd {
        Self::command("EVALSHA", &self.hash, keys)
    }

    /// The same for a server that does not know it.
    pub(crate) fn by_source(&self, keys: &[&[u8]]) -> Cmd {
        Self::command("EVAL", self.source, keys)
    }

    fn command(verb: &str, script: &str, keys: &[&[u8]]) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        command
    }
}
