//! Whether a server can hold a ledger: asked of each new connection, and again while it lasts.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Fault,
    error::OLDEST,
    wire::{Failed, Wire},
};

/// What a server has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Standalone,
    Cluster,
}

/// What a server said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Changes with every start of the process.
    pub(crate) run_id: Arc<str>,
    /// Its version, as Redis counts.
    pub(crate) version: (u32, u32),
}

/// Asks the server what it is.
pub(crate) async fn check(wire: &Wire, mode: Mode, within: std::time::Duration) -> Result<Checked, Failed> {
    let text: String = match wire.ask(&redis::cmd("INFO"), within).await {
        Err(Failed::Refused { code, said }) if code == "NOPERM" => {
            return Err(Failed::Fault(Fault::Forbidden { said }));
        }
        other => other?,
    };
    judge(&text, mode)
}

fn judge(text: &str, mode: Mode) -> Result<Checked, Failed> {
    let info: HashMap<&str, &str> = text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let field = |name: &str| info.get(name).copied();
    let version = field("redis_version").unwrap_or("unknown");
    let parsed = parse_version(version).unwrap_or_default();
    // Valkey writes `server_mode`.
    let actual = field("redis_mode").or_else(|| field("server_mode"));
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    let fault = match (actual, mode) {
        (Some("sentinel"), _) => Some(Fault::IsSentinel),
        _ if parsed < OLDEST => Some(Fault::TooOld { version: version.to_owned() }),
        (Some("cluster"), Mode::Standalone) => Some(Fault::IsCluster),
        (Some("standalone"), Mode::Cluster) => Some(Fault::NotCluster),
        _ if policy != "noeviction" => Some(Fault::Evicts { policy: policy.to_owned() }),
        _ if field("role") == Some("slave") => {
            let part = |name| field(name).unwrap_or("?");
            Some(Fault::Replica { master: format!("{}:{}", part("master_host"), part("master_port")) })
        }
        _ => None,
    };
    if let Some(fault) = fault {
        return Err(Failed::Fault(fault));
    }
    if field("loading") == Some("1") {
        return Err(Failed::Refused { code: "LOADING".into(), said: "it reads its data set".into() });
    }
    let Some(run_id) = field("run_id") else {
        return Err(Failed::Fault(Fault::NotRedis { said: "INFO without run_id".into() }));
    };
    Ok(Checked { run_id: run_id.into(), version: parsed })
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n\
                        # Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\nloading:0\r\nrole:master\r\n";

    fn fault_of(text: &str, mode: Mode) -> Option<Fault> {
        match judge(text, mode) {
            Err(Failed::Fault(fault)) => Some(fault),
            Ok(_) => None,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_master_that_forgets_nothing_is_good() {
        let checked = judge(GOOD, Mode::Standalone).unwrap();
        assert_eq!((&*checked.run_id, checked.version), ("abc", (7, 0)));
    }

    #[test]
    fn each_unfit_server_is_told_by_name() {
        for (from, to, fault) in [
            ("7.0.15", "6.0.9", Fault::TooOld { version: "6.0.9".into() }),
            ("noeviction", "allkeys-lru", Fault::Evicts { policy: "allkeys-lru".into() }),
            ("noeviction", "volatile-ttl", Fault::Evicts { policy: "volatile-ttl".into() }),
            ("mode:standalone", "mode:cluster", Fault::IsCluster),
            ("mode:standalone", "mode:sentinel", Fault::IsSentinel),
            ("redis_mode:standalone", "server_mode:cluster", Fault::IsCluster),
            (
                "role:master",
                "role:slave\r\nmaster_host:db1\r\nmaster_port:6379",
                Fault::Replica { master: "db1:6379".into() },
            ),
        ] {
            assert_eq!(fault_of(&GOOD.replace(from, to), Mode::Standalone), Some(fault), "{from} -> {to}");
        }
        assert_eq!(fault_of(GOOD, Mode::Cluster), Some(Fault::NotCluster));
    }

    #[test]
    fn a_server_that_loads_is_only_not_ready() {
        let loading = GOOD.replace("loading:0", "loading:1");
        assert!(
            matches!(judge(&loading, Mode::Standalone), Err(Failed::Refused { code, .. }) if code == "LOADING")
        );
    }
}
