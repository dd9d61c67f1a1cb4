//! A certified identity provider that nobody here wrote: `oidc-provider`, as a process.

use std::{net::SocketAddr, path::Path, process::Command};

use serde_json::Value as Json;

use super::{client, process::Process};

/// A running provider. Dropping it kills it.
pub struct OidcProvider {
    process: Process,
    issuer: String,
    pages: String,
}

impl OidcProvider {
    /// Starts one with these clients, times to live and features, as its own configuration writes them.
    pub async fn start(settings: Json) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider");
        assert!(
            directory.join("node_modules").is_dir(),
            "there is no oidc-provider; `make test` installs it"
        );
        let mut command = Command::new("node");
        command.arg("provider.mjs").arg(settings.to_string()).current_dir(directory);
        let process = Process::start("node", &mut command);
        process.printed("listening on ").await;
        let output = process.output();
        let after = |words| output.split(words).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { issuer: after("listening on "), pages: after("pages at "), process }
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where it listens, over plain HTTP.
    pub fn addr(&self) -> SocketAddr {
        self.pages.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// What it did, by its own count.
    pub async fn count(&self, of: &str) -> u64 {
        client::get_at(self.addr(), "/counts", &[]).await.json()[of].as_u64().unwrap()
    }

    /// Signs by another key from now on, and shows that one alone.
    pub async fn rotate_keys(&self) {
        client::get_at(self.addr(), "/rotate", &[]).await;
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Whether the provider at `addr` granted this token, and it is still good.
pub async fn knows(addr: SocketAddr, token: &str) -> bool {
    client::get_at(addr, &format!("/knows?token={token}"), &[]).await.json() == true
}
