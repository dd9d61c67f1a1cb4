//! Asks sentinels who the master is.

use tidegate::Server;

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

/// Asks one after the other, the first that knows is believed.
///
/// # Errors
/// What the last one said, but a fault rather than an absence: it is what an operator can mend.
pub(crate) async fn resolve(sentinels: &Sentinels) -> Result<Server, StoreError> {
    let mut told: Option<StoreError> = None;
    for dial in &sentinels.dials {
        match ask(dial, sentinels).await {
            Ok(server) => return Ok(server),
            Err(failed) => {
                let error = failed.at(&dial.server);
                if told.as_ref().is_none_or(|told| told.fault().is_none()) {
                    told = Some(error);
                }
            }
        }
    }
    Err(told.expect("a URL of sentinels names at least one"))
}

async fn ask(dial: &Dial, sentinels: &Sentinels) -> Result<Server, Failed> {
    let wire = match Wire::open(dial, None).await {
        Err(Failed::Fault(Fault::PasswordMissing)) if sentinels.credentials.is_some() => {
            let login = Dial { credentials: sentinels.credentials.clone(), ..dial.clone() };
            Wire::open(&login, None).await?
        }
        other => other?,
    };
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
