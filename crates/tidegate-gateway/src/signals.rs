//! What the process is told from outside: SIGTERM and SIGINT drain, a second one aborts, SIGHUP reloads, SIGUSR2 upgrades.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that a second signal cut short: what was in flight is lost.
pub const EXIT_ABORTED: u8 = 1;

/// What signals ask for. Clones see the same.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT: finish what is in flight, then exit with 0.
    pub drain: CancellationToken,
    /// Cancelled by the second: exit at once with [`EXIT_ABORTED`].
    pub abort: CancellationToken,
    /// Changes with each SIGHUP; several at once are one.
    pub reload: watch::Receiver<u64>,
    /// Changes with each SIGUSR2: another process is to take the place of this one.
    pub upgrade: watch::Receiver<u64>,
}

impl Signals {
    /// Listens from now on, on the runtime of the caller.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        let second_user = signal(SignalKind::user_defined2())?;
        let (reloads, reload) = watch::channel(0);
        let (upgrades, upgrade) = watch::channel(0);
        let signals =
            Self { drain: CancellationToken::new(), abort: CancellationToken::new(), reload, upgrade };
        tokio::spawn(end(terminate, interrupt, signals.drain.clone(), signals.abort.clone()));
        tokio::spawn(count(hangup, reloads));
        tokio::spawn(count(second_user, upgrades));
        Ok(signals)
    }
}

async fn end(
    mut terminate: Signal,
    mut interrupt: Signal,
    drain: CancellationToken,
    abort: CancellationToken,
) {
    for token in [drain, abort] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}

async fn count(mut signal: Signal, counts: watch::Sender<u64>) {
    while signal.recv().await.is_some() {
        counts.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// One test, since a process has one set of signals.
    #[tokio::test]
    async fn the_first_signal_drains_the_second_aborts_hangup_reloads_and_usr2_upgrades() {
        let mut signals = Signals::listen().unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        signals.reload.changed().await.unwrap();
        kill_process(getpid(), Signal::USR2).unwrap();
        signals.upgrade.changed().await.unwrap();
        assert!(!signals.drain.is_cancelled());

        kill_process(getpid(), Signal::TERM).unwrap();
        signals.drain.cancelled().await;
        assert!(!signals.abort.is_cancelled());

        kill_process(getpid(), Signal::INT).unwrap();
        signals.abort.cancelled().await;
    }
}
