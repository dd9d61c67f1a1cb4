//! Whole histories of a fleet on virtual time: replicas that are killed at any point, callers that leave, answers that are
//! late or lost, a store that is down now and then, and a provider that rotates and detects reuse.
//!
//! 8000 refreshes by default; `TIDEGATE_TOKEN_REFRESHES=1000000` makes more, `TIDEGATE_TOKEN_SEED=7` another history.
#![cfg(not(any(loom, shuttle)))]

#[path = "support/idp.rs"]
mod idp;
#[path = "support/sessions.rs"]
mod sessions;
#[path = "support/trace.rs"]
mod trace;

use std::{cell::RefCell, env, rc::Rc, time::Duration};

use idp::{Fault, Idp};
use sessions::{Distant, Mortal};
use tidegate::{
    Call, clock,
    token::{Login, MemorySessions, Over, SessionId, Settings, TokenCoordinator, TokenError},
};
use tokio::time::{sleep, timeout};

type Replica = TokenCoordinator<Mortal<Idp>, Distant>;

const REPLICAS: usize = 4;
const SESSIONS: u64 = 400;

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn start(idp: &Idp, store: &MemorySessions, settings: &Settings) -> (Replica, Distant) {
    let store = Distant::new(store);
    let mortal = Mortal { inner: idp.clone(), life: store.life.clone() };
    let replica = TokenCoordinator::new(mortal, store.clone(), settings.clone()).expect("good settings");
    (replica, store)
}

/// What users met.
#[derive(Default, Debug)]
struct Tally {
    served: u64,
    refused: u64,
    left: u64,
    kills: u64,
    /// Sessions that ended, with why.
    ended: Vec<Over>,
    /// What happened to those that should not have ended.
    told: Vec<String>,
}

impl Tally {
    fn ended(&self, why: Over) -> usize {
        self.ended.iter().filter(|over| **over == why).count()
    }
}

struct World {
    idp: Idp,
    store: MemorySessions,
    settings: Settings,
    fleet: RefCell<Vec<(Replica, Distant)>>,
    tally: RefCell<Tally>,
    dice: RefCell<fastrand::Rng>,
    wanted: u64,
    /// How sessions may end.
    expected: Option<Over>,
}

impl World {
    fn roll(&self, most: u64) -> u64 {
        self.dice.borrow_mut().u64(0..most)
    }

    fn over(&self) -> bool {
        self.idp.grants() >= self.wanted
    }

    /// A user whose browser asks now and then, of whichever replica; logs in again when it is told to.
    async fn user(self: Rc<Self>, number: u64) {
        let mut life = 0;
        let mut id = self.login(number, life).await;
        while !self.over() {
            sleep(Duration::from_millis(100 + self.roll(40_000))).await;
            let place = self.roll(REPLICAS as u64) as usize;
            let replica = self.fleet.borrow()[place].0.clone();
            let call = Call::at(clock::now()).within(Duration::from_secs(10));
            // One in twenty leaves before the answer.
            let patience = if self.roll(20) == 0 { self.roll(120) } else { 60_000 };
            trace::note(id.as_str(), format_args!("replica {place} is asked, for {patience} ms"));
            let answer = timeout(Duration::from_millis(patience), replica.fresh(&id, &call)).await;
            if let Ok(answer) = &answer {
                let answer = answer.as_ref().map(|token| token.generation());
                trace::note(id.as_str(), format_args!("replica {place} answers {answer:?}"));
            }
            let tally = |change: fn(&mut Tally)| change(&mut self.tally.borrow_mut());
            match answer {
                Err(_) => tally(|tally| tally.left += 1),
                Ok(Ok(_)) => tally(|tally| tally.served += 1),
                Ok(Err(TokenError::LoginNeeded(over))) => {
                    if Some(over) != self.expected {
                        let told = format!("{over:?} of {}:\n{}", id.as_str(), trace::told(id.as_str()));
                        self.tally.borrow_mut().told.push(told);
                    }
                    trace::forget(id.as_str());
                    self.tally.borrow_mut().ended.push(over);
                    life += 1;
                    id = self.login(number, life).await;
                }
                Ok(Err(_)) => tally(|tally| tally.refused += 1),
            }
        }
    }

    async fn login(&self, number: u64, life: u64) -> SessionId {
        let family = number * 100_000 + life;
        let id = SessionId::new(&format!("user-{number}-{life}")).expect("an id");
        loop {
            let replica = self.fleet.borrow()[self.roll(REPLICAS as u64) as usize].0.clone();
            let login = Login::of(self.idp.login(family));
            let begun = timeout(Duration::from_secs(5), replica.begin(&id, login)).await;
            match begun {
                Ok(Ok(true)) => return id,
                // Its replica died with the answer on its way; the family is the same.
                Ok(Ok(false)) => return id,
                Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// What goes wrong: kills, faults of one grant in a hundred, a store that is away.
    async fn fate(self: Rc<Self>, lose: bool) {
        while !self.over() {
            sleep(Duration::from_millis(1 + self.roll(4000))).await;
            match self.roll(20) {
                0 => {
                    let place = self.roll(REPLICAS as u64) as usize;
                    let fresh = start(&self.idp, &self.store, &self.settings);
                    let killed = std::mem::replace(&mut self.fleet.borrow_mut()[place], fresh);
                    killed.1.life.kill();
                    trace::note("", format_args!("replica {place} dies"));
                    self.tally.borrow_mut().kills += 1;
                }
                1 => {
                    let place = self.roll(REPLICAS as u64) as usize;
                    let store = self.fleet.borrow()[place].1.clone();
                    store.down(true);
                    trace::note("", format_args!("replica {place} loses the store"));
                    sleep(Duration::from_millis(self.roll(3000))).await;
                    store.down(false);
                    trace::note("", format_args!("replica {place} has the store again"));
                }
                _ => {}
            }
            if self.roll(4) == 0 {
                let late = Duration::from_millis(self.roll(20_000));
                let answer_lost = lose && self.roll(3) == 0;
                self.idp.next(if answer_lost { Fault::LoseAnswer } else { Fault::Late(late) });
            }
        }
    }
}

/// One history.
async fn history(settings: Settings, grace: Duration, lose: bool) -> (Idp, Tally) {
    let seed = setting("TIDEGATE_TOKEN_SEED").unwrap_or(1);
    fastrand::seed(seed);
    trace::begin();
    let (idp, store) = (Idp::new(), MemorySessions::default());
    idp.with(|state| {
        (state.grace, state.life, state.latency) =
            (grace, Duration::from_secs(60), Duration::from_millis(100));
    });
    let fleet = (0..REPLICAS).map(|_| start(&idp, &store, &settings)).collect();
    let world = Rc::new(World {
        idp: idp.clone(),
        store,
        settings,
        fleet: RefCell::new(fleet),
        tally: RefCell::default(),
        dice: RefCell::new(fastrand::Rng::with_seed(seed)),
        wanted: setting("TIDEGATE_TOKEN_REFRESHES").unwrap_or(8000) / 2,
        expected: (!lose).then_some(Over::Unknown),
    });
    let local = tokio::task::LocalSet::new();
    for number in 0..SESSIONS {
        local.spawn_local(Rc::clone(&world).user(number));
    }
    local.spawn_local(Rc::clone(&world).fate(lose));
    local.await;
    let world = Rc::into_inner(world).expect("all users are gone");
    (idp, world.tally.into_inner())
}

#[tokio::test(start_paused = true)]
async fn with_a_grace_nobody_is_logged_out_whatever_dies_or_is_lost() {
    let settings = Settings {
        reuse_grace: Some(Duration::from_secs(60)),
        lease: Duration::from_secs(5),
        grants: 50,
        ..Settings::default()
    };
    let (idp, tally) = history(settings, Duration::from_secs(60), true).await;
    println!(
        "{} grants, {} served, {} refused, {} left, {} kills, ended: {:?}",
        idp.grants(),
        tally.served,
        tally.refused,
        tally.left,
        tally.kills,
        tally.ended
    );
    assert_eq!(idp.reuses(), 0);
    assert_eq!(tally.ended, [], "{}", tally.told.join("\n\n"));
    assert!(tally.served > idp.grants() && tally.kills > 0 && tally.left > 0, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_only_an_unknown_outcome_ends_a_session_and_nothing_is_reused() {
    let settings = Settings { lease: Duration::from_secs(5), grants: 50, ..Settings::default() };
    let (idp, tally) = history(settings, Duration::ZERO, false).await;
    let unknown = tally.ended(Over::Unknown);
    println!(
        "{} grants, {unknown} unknown outcomes, {} served, {} kills",
        idp.grants(),
        tally.served,
        tally.kills
    );
    assert_eq!(idp.reuses(), 0);
    assert_eq!(tally.ended.len(), unknown, "{}", tally.told.join("\n\n"));
    assert!(tally.served > idp.grants() && tally.kills > 0 && tally.left > 0, "{tally:?}");
    // What was out when a replica was killed: for each kill the grants of one replica, and most had none.
    assert!(unknown as u64 <= tally.kills * 2, "{unknown} unknown outcomes of {} kills", tally.kills);
}
