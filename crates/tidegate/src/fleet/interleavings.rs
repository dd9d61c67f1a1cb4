//! Very many interleavings of callers that wait, leave and give back, and of the answers they wait for:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate --lib --target-dir target/shuttle fleet::interleavings`.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};

use shuttle::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};
use tidegate_core::{
    Instant,
    credit::Terms,
    lease::Node,
    ledger::{Book, Calendar, Epoch, Rule},
};

use super::{
    number,
    parcel::{Home, Parcel},
    shard::Shard,
    slot::{Answer, Receipt},
    step::{Caller, Delivery, Errands, Landed, Local, Patience},
};
use crate::{
    sync::Mutex,
    throttle::{Key, Mode},
};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const KEY: Key = Key::ALL;

/// One node, its ledger, and a thread for each question.
struct World {
    shard: Shard,
    book: Mutex<Book>,
    rule: Rule,
    admitted: AtomicU32,
}

/// Where parcels go back to: they cannot hold the model's own pointer.
struct Address(Arc<World>);

impl Home for Address {
    fn take_back(&self, key: Key, receipt: Receipt, now: Instant) {
        self.0.shard.0.lock().give_back(key, receipt, now);
    }
}

impl World {
    fn new(limit: u32) -> Arc<Self> {
        let rule = Rule::each(Calendar::Day, limit).build().expect("a rule");
        let shard = Shard::new(rule, Terms::of(&rule), Mode::Enforce, 8);
        Arc::new(Self { shard, book: Mutex::new(Book::default()), rule, admitted: AtomicU32::new(0) })
    }

    fn enter(self: &Arc<Self>) -> Local {
        if let Some((receipt, _)) = self.shard.0.lock().spend(KEY, 1, NOW) {
            return Local::Granted(receipt);
        }
        let mut errands: Errands = [None, None];
        let caller = Caller { key: KEY, cost: 1, now: NOW, patience: Patience::Waits, told: 0 };
        let local = self.shard.0.lock().enter(caller, &mut errands, None);
        self.send(errands);
        local
    }

    fn send(self: &Arc<Self>, errands: Errands) {
        for errand in errands.into_iter().flatten() {
            let world = Arc::clone(self);
            thread::spawn(move || {
                let ask = errand.draft.send(Node(1), number::next());
                let reply = world.book.lock().grant(&world.rule, &ask, 86_400_000_000, Epoch::WHOLE);
                let mut deliveries = Vec::new();
                let reply = Some(&reply);
                let landed =
                    Landed { key: KEY, ask: &ask, era: errand.era, told: 0, reply, sent_at: NOW, now: NOW };
                let (_, next) = world.shard.0.lock().answered(&landed, 0, &mut deliveries);
                for delivery in deliveries {
                    match delivery {
                        Delivery::Receipt(tell, receipt) => {
                            let home = Arc::new(Address(Arc::clone(&world)));
                            drop(tell.send(Answer::Granted(Parcel::new(home, KEY, receipt))));
                        }
                        Delivery::Plain(tell, answer) => drop(tell.send(answer)),
                    }
                }
                world.send(next);
            });
        }
    }

    /// A caller that waits for its answer.
    fn call(self: &Arc<Self>) {
        let receipt = match self.enter() {
            Local::Granted(receipt) => Some(receipt),
            Local::Waiting(told) => match block_on(told).expect("whoever waits is told") {
                Answer::Granted(parcel) => Some(parcel.open()),
                Answer::Denied(_) => None,
                _ => panic!("nothing else can be said here"),
            },
            Local::Denied(_) => None,
            _ => panic!("nothing else can be said here"),
        };
        self.admitted.fetch_add(u32::from(receipt.is_some()), Ordering::SeqCst);
    }

    /// A caller that looks once and goes away.
    fn leave(self: &Arc<Self>) {
        match self.enter() {
            Local::Granted(_) => _ = self.admitted.fetch_add(1, Ordering::SeqCst),
            Local::Waiting(told) => {
                let mut told = pin!(told);
                // What it is told in that moment, it drops unread.
                let _ = told.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            _ => {}
        }
    }
}

#[test]
fn whoever_waits_is_told_and_nothing_is_lost_or_minted() {
    shuttle::check_random(
        || {
            let world = World::new(3);
            let callers: Vec<_> = [World::call, World::leave, World::call, World::leave, World::call]
                .into_iter()
                .map(|caller: fn(&Arc<World>)| {
                    let world = Arc::clone(&world);
                    thread::spawn(move || caller(&world))
                })
                .collect();
            callers.into_iter().for_each(|caller| caller.join().expect("a model ends at the first panic"));
            // Whatever is under way has landed when nobody is in line and nothing is asked.
            loop {
                let mut state = world.shard.0.lock();
                if state.accounts.iter_mut().all(|slot| slot.is_at_rest()) {
                    let in_hand: u32 = state.accounts.iter_mut().map(|slot| slot.account.in_hand(NOW)).sum();
                    let left = world.book.lock().inspect(&world.rule, 86_400_000_000).remaining;
                    let admitted = world.admitted.load(Ordering::SeqCst);
                    if u64::from(admitted + in_hand) + left == 3 {
                        assert!(admitted <= 3);
                        return;
                    }
                }
                drop(state);
                // A parcel may be on its way back.
                thread::yield_now();
            }
        },
        3000,
    );
}
