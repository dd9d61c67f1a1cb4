//! The command that keeps an instance registered beside it: registers, says what happens, deregisters at the end.

use std::{fmt, io::Write as _, process::ExitCode, time::Duration};

use jiff::Timestamp;
use tidegate::{
    Instant, clock,
    registry::{Instance, Registration, Source as _, Standing, registration},
};
use tidegate_etcd::{EtcdRegistry, InvalidRegistryUrl, Layout, LeaseSettings, RegistryUrl};

use crate::{
    cli::Register,
    config::{self, ClientTls, RegistryLayout, SecretSetting},
    registry::{Files, NoRegistry, etcd},
    signals::Signals,
};

/// How long giving the lease back may take once the instance is deregistered. Default: 2 s.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Keeps an instance registered until the process is told to end.
pub fn register(what: &Register) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        // Before anything counts on it: the anchor of the clock.
        clock::now();
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("tidegate: cannot listen for signals: {error}");
                return ExitCode::FAILURE;
            }
        };
        match open(what) {
            Ok(registry) => keep(what, &registry, &signals).await,
            Err(error) => {
                eprintln!("tidegate: {error}");
                ExitCode::from(2)
            }
        }
    })
}

/// Why there is nothing to register in. No variant prints a password.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("--registry: {0}")]
    Url(#[from] InvalidRegistryUrl),
    #[error("--registry: {0} takes no registrations; write etcd://host:2379")]
    ReadOnly(RegistryUrl),
    #[error(
        "--roots, --cert and --key are for a registry over TLS; begin its URL with etcds, or leave them out"
    )]
    NoTls,
    #[error("--user: the URL of the registry has a user as well; remove one of them")]
    TwoUsers,
    #[error(transparent)]
    Registry(#[from] NoRegistry),
}

/// The registry that the flags mean, by the same way as that of a configuration.
fn open(what: &Register) -> Result<EtcdRegistry, Unfit> {
    let text = what.registry.expose();
    let url: RegistryUrl = text.parse()?;
    let RegistryUrl::Etcd { tls, credentials, .. } = &url else { return Err(Unfit::ReadOnly(url)) };
    let Register { roots, cert, key, .. } = what.clone();
    let with_tls = roots.is_some() || cert.is_some();
    if with_tls && !tls {
        return Err(Unfit::NoTls);
    }
    if what.user.is_some() && credentials.is_some() {
        return Err(Unfit::TwoUsers);
    }
    let config = config::Registry {
        layout: match what.layout {
            Layout::Tidegate => RegistryLayout::Tidegate,
            Layout::GoMicro => RegistryLayout::GoMicro,
        },
        user: what.user.clone(),
        password: what.password_file.clone().map(SecretSetting::File),
        tls: with_tls.then_some(ClientTls { roots, cert, key, server_name: None }),
        ..config::Registry::at(text)
    };
    let lease = match what.ttl {
        Some(ttl) => LeaseSettings::default().ttl(ttl),
        None => LeaseSettings::default(),
    };
    Ok(etcd(&config, &Files::read(&config)?, lease)?)
}

async fn keep(what: &Register, registry: &EtcdRegistry, signals: &Signals) -> ExitCode {
    let instance = instance(what);
    let name = name(&instance);
    let (mut owner, registrant) = registration(instance);
    if let Err(error) = registry.register(registrant) {
        eprintln!("tidegate: {error}");
        return ExitCode::FAILURE;
    }
    say(format_args!("registering {name} in {}", registry.describe()));
    let mut told = Told::default();
    loop {
        tokio::select! {
            // What has happened is told before the end is.
            biased;
            changed = owner.changed() => match changed {
                Ok(standing) => {
                    if let Some(news) = told.news(&standing, &name) {
                        say(format_args!("{news}"));
                    }
                }
                // The tasks of the source end with the runtime only.
                Err(gone) => {
                    eprintln!("tidegate: {gone}");
                    return ExitCode::FAILURE;
                }
            },
            () = signals.drain.cancelled() => break,
        }
    }
    deregister(what, owner, registry, signals, &name).await
}

async fn deregister(
    what: &Register,
    owner: Registration,
    registry: &EtcdRegistry,
    signals: &Signals,
    name: &str,
) -> ExitCode {
    let patience = *what.patience;
    let was_there = !matches!(owner.standing(), Standing::Pending { .. });
    let ended = tokio::select! {
        ended = tokio::time::timeout(patience, owner.deregister()) => matches!(ended, Ok(Ok(()))),
        () = signals.abort.cancelled() => false,
    };
    if !was_there {
        say(format_args!("ended before {name} was registered"));
        return ExitCode::SUCCESS;
    }
    let gone = if ended {
        confirm(what, registry, patience).await
    } else {
        Err(format!("no answer within {}", what.patience))
    };
    match gone {
        Ok(()) => {
            say(format_args!("deregistered {name}"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("tidegate: could not deregister {name}: {why}; it stays listed until its lease ends");
            ExitCode::FAILURE
        }
    }
}

/// Whether etcd has taken it out: the source ends without a word where etcd does not answer, as the lease will.
async fn confirm(what: &Register, registry: &EtcdRegistry, patience: Duration) -> Result<(), String> {
    // The lease is of no use to anybody, but would live on for a while.
    let _ = tokio::time::timeout(LAST_WORDS, registry.close()).await;
    match tokio::time::timeout(patience, registry.get(&what.service)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {}", what.patience)),
    }
}

fn instance(what: &Register) -> Instance {
    let id = what.id.clone().unwrap_or_else(|| what.address.to_string());
    let mut instance = Instance::new(what.service.clone(), id, what.address.clone());
    instance.metadata = what.metadata.iter().cloned().collect();
    instance.zone = what.zone.clone();
    if let Some(weight) = what.weight {
        instance = instance.weight(weight);
    }
    match &what.release {
        Some(release) => instance.version(release),
        None => instance,
    }
}

/// How it is called; one whose id is its address has one name only.
fn name(Instance { service, id, address, .. }: &Instance) -> String {
    if id == address.as_str() {
        format!("{service} at {address}")
    } else {
        format!("{service} {} at {address}", id.escape_debug())
    }
}

/// Says it with the time, for people and their logs.
fn say(what: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away does not end the registration.
    let _ = writeln!(out, "{:.0} {what}", Timestamp::now());
    let _ = out.flush();
}

/// What was said last, so that nothing is said twice.
#[derive(Debug, Default)]
struct Told {
    last: Option<String>,
    lost_since: Option<Instant>,
}

impl Told {
    /// What to say of a standing.
    fn news(&mut self, standing: &Standing, name: &str) -> Option<String> {
        let news = match standing {
            Standing::Pending { why: None } | Standing::Gone => return None,
            Standing::Pending { why: Some(why) } => format!("not registered yet: {why}"),
            Standing::Registered { since } => match self.lost_since.take() {
                Some(lost) => format!("back {name} after {:.1}s", since.since(lost).as_secs_f64()),
                None => format!("registered {name}"),
            },
            Standing::Lost { since, why } => {
                let since = *self.lost_since.get_or_insert(*since);
                let unix = Duration::from_nanos(since.as_nanos());
                let at = Timestamp::try_from(std::time::SystemTime::UNIX_EPOCH + unix);
                let at = at.map_or_else(|_| "now".into(), |at| format!("{at:.0}"));
                format!("lost {name} since {at}: {why}")
            }
        };
        let again = self.last.as_ref() == Some(&news);
        self.last = Some(news.clone());
        (!again).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use tidegate::registry::SourceError;

    use super::*;

    #[test]
    fn an_instance_without_an_id_of_its_own_is_named_once() {
        let at = |id: &str| {
            let address = "10.0.0.7:9001".parse().expect("an address");
            name(&Instance::new("orders".parse().expect("a name"), id, address))
        };
        assert_eq!(at("10.0.0.7:9001"), "orders at 10.0.0.7:9001");
        assert_eq!(at("a\n"), "orders a\\n at 10.0.0.7:9001");
    }

    #[test]
    fn what_happens_is_said_once() {
        let mut told = Told::default();
        let at = |seconds: u64| Instant::from_nanos((1_700_000_000 + seconds) * 1_000_000_000);
        let why = || SourceError::unavailable("etcd is away");
        let mut news = |standing| told.news(&standing, "orders a at h:1");
        let pending = Standing::Pending { why: Some(why()) };
        assert_eq!(news(pending.clone()).unwrap(), "not registered yet: etcd is away");
        assert_eq!(news(pending), None);
        assert_eq!(news(Standing::Registered { since: at(1) }).unwrap(), "registered orders a at h:1");
        let lost = Standing::Lost { since: at(5), why: why() };
        assert_eq!(
            news(lost.clone()).unwrap(),
            "lost orders a at h:1 since 2023-11-14T22:13:25Z: etcd is away"
        );
        assert_eq!(news(lost), None);
        assert_eq!(news(Standing::Registered { since: at(7) }).unwrap(), "back orders a at h:1 after 2.0s");
        assert_eq!(news(Standing::Gone), None);
    }
}
