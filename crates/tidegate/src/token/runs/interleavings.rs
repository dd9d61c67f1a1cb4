//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate --lib interleavings`.

use shuttle::{
    future::block_on,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    thread,
};

use super::*;

fn id() -> SessionId {
    SessionId::new("alice").unwrap()
}

/// A process with one session, which begins anew now and then: each time as another incarnation.
#[derive(Default)]
struct Process {
    runs: Arc<Runs<u32>>,
    /// The incarnation of now.
    session: AtomicU32,
    /// What is known of it.
    known: AtomicU32,
    /// Refreshes that came to their end.
    done: AtomicUsize,
}

impl Process {
    /// Joins a refresh, and does it if it begins: what it brings is of the incarnation of now.
    fn refresh(self: &Arc<Self>) -> (Option<Run<u32>>, Option<thread::JoinHandle<()>>) {
        match self.runs.join(&id()) {
            Joined::UnderWay(run) => (Some(run), None),
            Joined::Closed => (None, None),
            Joined::Begun(run, turn, early) => {
                let this = Arc::clone(self);
                let doing = thread::spawn(move || {
                    let session = this.session.load(SeqCst);
                    let _early = early;
                    thread::yield_now();
                    turn.end(session, |found| this.known.store(*found, SeqCst));
                    this.done.fetch_add(1, SeqCst);
                });
                (Some(run), Some(doing))
            }
        }
    }

    /// The session ends, and another one begins under its name.
    fn begin_anew(&self) -> u32 {
        let session = self.session.fetch_add(1, SeqCst) + 1;
        self.runs.part(&id());
        self.known.store(session, SeqCst);
        session
    }
}

#[test]
fn in_every_interleaving_callers_at_once_share_a_refresh_and_all_learn_its_end_whoever_leaves() {
    shuttle::check_random(
        || {
            let process = Arc::new(Process::default());
            let callers: Vec<_> = (0..3)
                .map(|caller| {
                    let process = Arc::clone(&process);
                    thread::spawn(move || {
                        let (run, doing) = process.refresh();
                        // One of them leaves without waiting.
                        if let Some(run) = run.filter(|_| caller != 0) {
                            assert_eq!(block_on(run.first()), Ok(0));
                        }
                        doing
                    })
                })
                .collect();
            let doing: Vec<_> = callers.into_iter().filter_map(|caller| caller.join().unwrap()).collect();
            let begun = doing.len();
            assert!((1..=3).contains(&begun), "each began when the one before was over");
            doing.into_iter().for_each(|doing| doing.join().unwrap());
            assert_eq!(process.done.load(SeqCst), begun);
            assert_eq!((process.runs.under_way(), process.runs.has(&id())), (0, false));
        },
        2000,
    );
}

#[test]
fn in_every_interleaving_a_session_that_begins_anew_joins_nothing_of_the_old_one_and_is_not_told_of_it() {
    shuttle::check_random(
        || {
            let process = Arc::new(Process::default());
            let old = {
                let process = Arc::clone(&process);
                thread::spawn(move || process.refresh().1)
            };
            let anew = {
                let process = Arc::clone(&process);
                thread::spawn(move || {
                    let session = process.begin_anew();
                    let (run, doing) = process.refresh();
                    (session, block_on(run.expect("nothing is closed").first()), doing)
                })
            };
            let doing = old.join().unwrap();
            let (session, told, doing_anew) = anew.join().unwrap();
            assert_eq!(told, Ok(session), "what it joins is its own");
            doing.into_iter().chain(doing_anew).for_each(|doing| doing.join().unwrap());
            assert_eq!(process.known.load(SeqCst), session);
            assert_eq!((process.runs.under_way(), process.runs.has(&id())), (0, false));
        },
        2000,
    );
}

#[test]
fn in_every_interleaving_a_lost_refresh_is_told_and_the_next_one_begins() {
    shuttle::check_random(
        || {
            let process = Arc::new(Process::default());
            let losing = {
                let process = Arc::clone(&process);
                thread::spawn(move || {
                    if let Joined::Begun(run, turn, early) = process.runs.join(&id()) {
                        drop((turn, early));
                        assert_eq!(block_on(run.first()), Err(Crash::Lost));
                    }
                })
            };
            let caller = {
                let process = Arc::clone(&process);
                thread::spawn(move || {
                    let (run, doing) = process.refresh();
                    (block_on(run.expect("nothing is closed").first()), doing)
                })
            };
            losing.join().unwrap();
            let (told, doing) = caller.join().unwrap();
            assert!(told == Ok(0) || (told == Err(Crash::Lost) && doing.is_none()), "{told:?}");
            doing.into_iter().for_each(|doing| doing.join().unwrap());
            assert_eq!((process.runs.under_way(), process.runs.has(&id())), (0, false));
        },
        2000,
    );
}

#[test]
fn in_every_interleaving_nothing_begins_after_the_close_and_all_that_began_is_waited_for() {
    shuttle::check_random(
        || {
            let process = Arc::new(Process::default());
            let callers: Vec<_> = (0..2)
                .map(|_| {
                    let process = Arc::clone(&process);
                    thread::spawn(move || process.refresh().1)
                })
                .collect();
            process.runs.close();
            block_on(process.runs.all_over());
            let begun = process.runs.table.lock().begun;
            assert!(matches!(process.runs.join(&id()), Joined::Closed));
            let doing: Vec<_> = callers.into_iter().filter_map(|caller| caller.join().unwrap()).collect();
            assert_eq!(doing.len() as u64, begun);
            doing.into_iter().for_each(|doing| doing.join().unwrap());
        },
        2000,
    );
}
