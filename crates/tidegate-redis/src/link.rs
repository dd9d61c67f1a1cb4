//! One server that is kept connected: opened, checked, watched, and opened again when it is lost.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate::{Breaker, Call, Instant, Outcome, Permit as _, Server, breaker::Permit, clock};
use tokio::{
    sync::{Notify, watch},
    time::{self, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    Fault, StoreError,
    check::{Checked, Mode, check},
    sentinel::{Panel, Sentinels},
    server_clock::ServerClock,
    settings::InvalidSettings,
    tended::Tended,
    wire::{Dial, Failed, Wire},
};

/// Probes of a connection for each time that the server is checked again as on the first day.
const PROBES_A_CHECK: u32 = 10;
/// The first wait before a lost server is tried again, at most; it doubles up to the settings' bound.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// Whom a link leads to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// This server.
    Server,
    /// Whoever the sentinels call the master.
    Master(Sentinels),
}

/// A server that is kept connected. The task that does it ends with the last clone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Tended<Shared>>);

struct Shared {
    state: watch::Sender<State>,
    breaker: Breaker,
    /// The connection that a command found broken.
    broken: AtomicU64,
    /// When the server answered last, in nanoseconds: however late.
    heard_at: AtomicU64,
    /// The longest time without an answer of a server that is there: its probes are answered.
    silence: Duration,
    found: Notify,
}

/// What a link is.
#[derive(Clone)]
pub(crate) enum State {
    /// Nothing is known yet. Ends with the first answer, good or bad.
    Connecting,
    /// It can be asked. Ends when it is lost or found unfit.
    Up(Up),
    /// It cannot be asked, and is tried again. Ends when it can.
    Down(StoreError),
}

/// An open and checked connection.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) wire: Wire,
    pub(crate) server: Server,
    pub(crate) checked: Checked,
    /// What the server's clock shows.
    pub(crate) clock: ServerClock,
    /// Counts the connections of this link.
    pub(crate) number: u64,
}

impl Link {
    /// Begins to connect. Needs a runtime.
    pub(crate) fn start(dial: Dial, mode: Mode, target: Target) -> Result<Self, InvalidSettings> {
        let breaker = Breaker::new(dial.settings.breaker)?;
        let (state, _) = watch::channel(State::Connecting);
        let shared = Arc::new(Shared {
            state,
            breaker,
            broken: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            silence: dial.settings.heartbeat + dial.settings.deadline,
            found: Notify::new(),
        });
        let panel = match target {
            Target::Server => None,
            Target::Master(sentinels) => Some(Panel::new(sentinels)),
        };
        let keeper = Keeper { dial, mode, panel, shared: shared.clone() };
        let task = tokio::spawn(keeper.run()).abort_handle();
        Ok(Self(Arc::new(Tended::new(shared, task))))
    }

    /// What it is now.
    pub(crate) fn state(&self) -> State {
        self.0.state.borrow().clone()
    }

    /// Follows what it is.
    pub(crate) fn follow(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Whether both are the same link.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits until something is known.
    pub(crate) async fn known(&self) -> State {
        let mut state = self.follow();
        match state.wait_for(|state| !matches!(state, State::Connecting)).await {
            Ok(state) => state.clone(),
            // The sender lives as long as `self`.
            Err(_) => pending().await,
        }
    }

    /// The connection, for one operation, if there is one and the breaker lets it.
    pub(crate) fn admit(&self) -> Result<Admitted<'_>, Unmet> {
        let shared = &self.0;
        let up = match &*shared.state.borrow() {
            State::Up(up) => up.clone(),
            State::Down(error) => return Err(Unmet::Not(error.clone())),
            State::Connecting => return Err(Unmet::Connecting),
        };
        let now = clock::now();
        match shared.breaker.admit(&Call::at(now)) {
            Ok(permit) => Ok(Admitted { link: self, up, permit, silence: shared.silence }),
            Err(_) => {
                let retry_in = shared.breaker.retry_in(now);
                Err(Unmet::Not(StoreError::Open { server: up.server, retry_in }))
            }
        }
    }

    /// When the server answered last, in time or not.
    pub(crate) fn heard_at(&self) -> Instant {
        Instant::from_nanos(self.0.heard_at.load(Relaxed))
    }

    /// Has this connection replaced, if it is still the one in use. Whether nobody has said so before.
    fn give_up(&self, number: u64) -> bool {
        let before = self.0.broken.fetch_max(number, Relaxed);
        self.0.found.notify_one();
        before < number
    }
}

impl Shared {
    fn heard(&self, now: Instant) {
        self.heard_at.fetch_max(now.as_nanos(), Relaxed);
    }
}

/// Leave to do one operation. One that is dropped counts as a failure when it ran longer than answers take.
pub(crate) struct Admitted<'a> {
    link: &'a Link,
    pub(crate) up: Up,
    permit: Permit,
    /// A server that says nothing for longer is not there.
    silence: Duration,
}

impl Admitted<'_> {
    /// The server has answered, too late for this operation.
    pub(crate) fn heard(&self) {
        self.link.0.heard(clock::now());
    }

    /// Tells how it ended, and gives back which server it was.
    pub(crate) fn settle<T>(self, result: &Result<T, Failed>) -> Server {
        let now = clock::now();
        let outcome = match result {
            Ok(_) => {
                self.link.0.heard(now);
                Outcome::Success
            }
            // A server that answers has too much to do, and is there; one that does not is found out by a probe.
            Err(Failed::Late(_)) if now.since(self.link.heard_at()) <= self.silence => Outcome::Ignore,
            // What was under way on a connection that broke is one failure, however much it was.
            Err(failed) if failed.ends_connection() && !self.link.give_up(self.up.number) => Outcome::Ignore,
            Err(failed) => evidence(failed),
        };
        self.permit.settle(outcome, now);
        self.up.server
    }
}

/// Why an operation was not sent.
pub(crate) enum Unmet {
    /// Nothing is known of the server yet.
    Connecting,
    /// It is known that it cannot be asked.
    Not(StoreError),
}

/// What a failure says of the server's health.
fn evidence(failed: &Failed) -> Outcome {
    match failed {
        Failed::Lost(_) | Failed::Late(_) => Outcome::Overload { retry_after: None },
        Failed::Refused { code, .. } => match code.as_str() {
            "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" | "OOM" | "MISCONF" | "NOREPLICAS" => {
                Outcome::Overload { retry_after: None }
            }
            _ => Outcome::Ignore,
        },
        Failed::Fault(_) | Failed::Moved(_) | Failed::Ask(_) | Failed::NoScript => Outcome::Ignore,
    }
}

/// Keeps a server connected.
struct Keeper {
    dial: Dial,
    mode: Mode,
    /// Who says which server is the master, where it is not always the same.
    panel: Option<Panel>,
    shared: Arc<Shared>,
}

impl Keeper {
    async fn run(mut self) {
        let (mut number, mut tries) = (0, 0);
        loop {
            let mut began = time::Instant::now();
            let error = match self.open().await {
                Ok((wire, checked)) => {
                    number += 1;
                    tries = 0;
                    let server = self.dial.server.clone();
                    tracing::info!(%server, run_id = %checked.run_id, "store connected");
                    let up = Up { wire, server, checked, clock: ServerClock::default(), number };
                    self.shared.heard(clock::now());
                    self.shared.state.send_replace(State::Up(up.clone()));
                    let error = self.watch(&up).await;
                    began = time::Instant::now();
                    error
                }
                Err(error) => error,
            };
            // One line a change: a server that stays away is not told again.
            let known = matches!(&*self.shared.state.borrow(), State::Down(old) if *old == error);
            if known {
                tracing::debug!(%error, "store still not connected");
            } else {
                tracing::warn!(%error, "store not connected");
            }
            self.shared.state.send_replace(State::Down(error));
            // From the beginning of the try: a server that hangs is answered by as soon as it goes on.
            sleep_until(began + self.wait(tries)).await;
            tries += 1;
        }
    }

    /// Full jitter: a fleet that lost its store comes back spread out.
    fn wait(&self, tries: u32) -> Duration {
        let most = FIRST_WAIT.saturating_mul(1 << tries.min(16)).min(self.dial.settings.reconnect_within);
        most.mul_f64(fastrand::f64())
    }

    async fn open(&mut self) -> Result<(Wire, Checked), StoreError> {
        if let Some(panel) = &mut self.panel {
            self.dial.server = panel.master(self.dial.settings.connect_timeout).await?;
        }
        let failed = |failed: Failed| failed.at(&self.dial.server);
        let wire = Wire::open(&self.dial, None).await.map_err(failed)?;
        let checked = check(&wire, self.mode, self.dial.settings.connect_timeout).await;
        let checked = checked.map_err(|error| failed(self.excused(error)))?;
        Ok((wire, checked))
    }

    /// In a failover, what a sentinel or another node said of a server is not true for a moment: nobody's fault.
    fn excused(&self, failed: Failed) -> Failed {
        match (failed, self.mode, &self.panel) {
            (Failed::Fault(Fault::Replica { master }), Mode::Cluster, _)
            | (Failed::Fault(Fault::Replica { master }), _, Some(_)) => {
                Failed::Lost(format!("it is a replica of {master}, and not the master any more"))
            }
            (failed, _, _) => failed,
        }
    }

    /// Returns when the connection is to be replaced, with the reason.
    async fn watch(&mut self, up: &Up) -> StoreError {
        let beat = self.dial.settings.heartbeat;
        let mut ticks = interval(beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probes = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shared.found.notified() => {
                    if self.shared.broken.load(Relaxed) >= up.number {
                        return Failed::Lost("the connection is lost, or the server's role".into()).at(&up.server);
                    }
                    continue;
                }
            }
            probes += 1;
            let began = time::Instant::now();
            // Side by side, so that both are known within a beat.
            let master = async {
                match &mut self.panel {
                    Some(panel) => panel.master(beat).await.map(Some),
                    None => Ok(None),
                }
            };
            let probe = probe(up, self.mode, probes % PROBES_A_CHECK == 0, beat);
            let (probed, master) = tokio::join!(probe, master);
            if began.elapsed() > beat * 2 && (probed.is_err() || master.is_err()) {
                // What a process missed that stood still itself says nothing of the server.
                ticks.reset_immediately();
                continue;
            }
            match probed {
                Ok(()) => self.shared.heard(clock::now()),
                Err(failed) => return self.excused(failed).at(&up.server),
            }
            match master {
                // The old master of a failover may go on answering, to nobody's good.
                Ok(Some(master)) if master != up.server => {
                    return Failed::Lost(format!("the sentinels call {master} the master now"))
                        .at(&up.server);
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

async fn probe(up: &Up, mode: Mode, whole: bool, beat: Duration) -> Result<(), Failed> {
    if whole {
        check(&up.wire, mode, beat).await?;
    }
    let asked_at = clock::now();
    let answer: Result<(u64, u64), Failed> = up.wire.ask(&redis::cmd("TIME"), beat).await;
    match answer {
        Ok((seconds, micros)) => {
            up.clock.set(seconds.saturating_mul(1_000_000).saturating_add(micros), asked_at);
            Ok(())
        }
        // A server that answers at all keeps its connection; what it cannot do, commands find out.
        Err(Failed::Refused { .. }) => Ok(()),
        Err(failed) => Err(failed),
    }
}
