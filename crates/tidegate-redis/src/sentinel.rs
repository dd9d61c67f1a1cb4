//! Asks sentinels who the master is.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tidegate::Server;
use tokio::time::{Instant, timeout_at};

use crate::{
    Fault, StoreError,
    wire::{Dial, Failed, Wire},
};

/// Sentinels and the name under which they know a master.
#[derive(Clone, Debug)]
pub(crate) struct Sentinels {
    /// How to reach each, without a login: sentinels have their own, or none.
    pub(crate) dials: Vec<Dial>,
    /// Tried where a sentinel wants a login after all.
    pub(crate) credentials: Option<tidegate::Credentials>,
    pub(crate) master: String,
}

/// Sentinels that are asked again and again, over connections that are kept.
pub(crate) struct Panel {
    sentinels: Sentinels,
    wires: Vec<Option<Wire>>,
}

impl Panel {
    pub(crate) fn new(sentinels: Sentinels) -> Self {
        let wires = sentinels.dials.iter().map(|_| None).collect();
        Self { sentinels, wires }
    }

    /// Asks all of them at once. The master is whom more than half call so, or half and nobody another: the others are too
    /// few to have elected one. A master that fewer vouch for may have a successor, and two ledgers would grant.
    ///
    /// # Errors
    /// What an operator can mend, if one of them said so; else how many vouch for nobody.
    ///
    /// # Cancel safety
    /// Connections may be lost.
    pub(crate) async fn master(&mut self, within: Duration) -> Result<Server, StoreError> {
        let (sentinels, deadline) = (&self.sentinels, Instant::now() + within);
        let all = sentinels.dials.len();
        let wires = self.wires.iter_mut().map(Option::take).collect::<Vec<_>>().into_iter();
        let mut asked: FuturesUnordered<_> = wires
            .enumerate()
            .map(|(at, wire)| async move { (at, ask(&sentinels.dials[at], wire, sentinels).await) })
            .collect();
        let (mut votes, mut told) = (Votes::default(), None::<StoreError>);
        while let Ok(Some((at, answer))) = timeout_at(deadline, asked.next()).await {
            match answer {
                Ok((wire, server)) => {
                    self.wires[at] = Some(wire);
                    if votes.count(server) * 2 > all {
                        break;
                    }
                }
                Err(failed) => {
                    let error = failed.at(&sentinels.dials[at].server);
                    if told.as_ref().is_none_or(|told| told.fault().is_none()) {
                        told = Some(error);
                    }
                }
            }
        }
        drop(asked);
        votes.winner(all).ok_or_else(|| match told {
            Some(error) if error.fault().is_some() || all == 1 => error,
            told => {
                let best = votes.best();
                let why = told.map_or_else(|| "no answer".into(), |error| error.to_string());
                StoreError::Unavailable {
                    server: sentinels.dials[0].server.clone(),
                    why: format!(
                        "{best} of {all} sentinels name a master, and at least {} must agree on it ({why})",
                        all.div_ceil(2)
                    ),
                }
            }
        })
    }
}

/// Who was named how often.
#[derive(Default)]
struct Votes(Vec<(Server, usize)>);

impl Votes {
    /// Counts a vote, and says how many this server has.
    fn count(&mut self, server: Server) -> usize {
        match self.0.iter_mut().find(|(named, _)| *named == server) {
            Some((_, votes)) => {
                *votes += 1;
                *votes
            }
            None => {
                self.0.push((server, 1));
                1
            }
        }
    }

    fn best(&self) -> usize {
        self.0.iter().map(|(_, votes)| *votes).max().unwrap_or(0)
    }

    /// Who is the master, when `all` were asked.
    fn winner(&self, all: usize) -> Option<Server> {
        let best = self.best();
        let named = self.0.iter().find(|(_, votes)| *votes == best)?;
        let agreed = best * 2 > all || best * 2 == all && self.0.len() == 1;
        agreed.then(|| named.0.clone())
    }
}

/// Asks one, over a connection that it had or another one.
async fn ask(dial: &Dial, kept: Option<Wire>, sentinels: &Sentinels) -> Result<(Wire, Server), Failed> {
    if let Some(wire) = kept
        && let Ok(server) = ask_over(&wire, dial, sentinels).await
    {
        return Ok((wire, server));
    }
    let wire = match Wire::open(dial, None).await {
        Err(Failed::Fault(Fault::PasswordMissing)) if sentinels.credentials.is_some() => {
            let login = Dial { credentials: sentinels.credentials.clone(), ..dial.clone() };
            Wire::open(&login, None).await?
        }
        other => other?,
    };
    let server = ask_over(&wire, dial, sentinels).await?;
    Ok((wire, server))
}

async fn ask_over(wire: &Wire, dial: &Dial, sentinels: &Sentinels) -> Result<Server, Failed> {
    let question = command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &sentinels.master]);
    let answer: Result<Option<(String, u16)>, Failed> =
        wire.ask(&question, dial.settings.connect_timeout).await;
    match answer {
        Ok(Some((host, port))) => Ok(Server { host, port }),
        Ok(None) => Err(Failed::Fault(Fault::MasterUnknown { name: sentinels.master.clone() })),
        Err(Failed::Refused { code, said }) if code == "ERR" => {
            Err(Failed::Fault(Fault::NotSentinel { said }))
        }
        Err(other) => Err(other),
    }
}

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn winner(all: usize, named: &[u16]) -> Option<u16> {
        let mut votes = Votes::default();
        for &port in named {
            votes.count(Server { host: "h".into(), port });
        }
        votes.winner(all).map(|server| server.port)
    }

    #[test]
    fn a_master_is_whom_too_few_are_left_to_replace() {
        for (all, named, master) in [
            (1, &[1][..], Some(1)),
            (1, &[], None),
            (2, &[1], Some(1)),
            (2, &[1, 2], None),
            (3, &[1], None),
            (3, &[1, 2], None),
            (3, &[1, 2, 2], Some(2)),
            (4, &[1, 1], Some(1)),
            (4, &[1, 1, 2], None),
            (5, &[1, 1], None),
            (5, &[1, 2, 1, 1], Some(1)),
        ] {
            assert_eq!(winner(all, named), master, "{all} sentinels, who name {named:?}");
        }
    }
}
