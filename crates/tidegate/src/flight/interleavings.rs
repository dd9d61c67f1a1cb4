//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate --lib interleavings`.

use std::task::{Wake, Waker};

use shuttle::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::*;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn in_every_interleaving_all_who_wait_learn_the_end_whoever_leaves() {
    shuttle::check_random(
        || {
            let (flight, lander) = Flight::<u32>::new();
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let flight = flight.clone();
                    thread::spawn(move || block_on(flight.join()))
                })
                .collect();
            let leaving = {
                let flight = flight.clone();
                thread::spawn(move || {
                    let waker = Waker::noop();
                    drop(Pin::new(&mut flight.join()).poll(&mut Context::from_waker(waker)));
                })
            };
            let landing = thread::spawn(move || lander.land(Ok(7)));
            for waiter in waiting {
                assert_eq!(waiter.join().unwrap(), Ok(7));
            }
            leaving.join().unwrap();
            landing.join().unwrap();
        },
        2000,
    );
}

#[test]
fn in_every_interleaving_a_waiter_is_woken_once_at_most_and_a_lost_flight_is_told() {
    shuttle::check_random(
        || {
            let (flight, lander) = Flight::<u32>::new();
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&count));
            let losing = thread::spawn(move || drop(lander));
            let mut join = flight.join();
            let polled = Pin::new(&mut join).poll(&mut Context::from_waker(&waker));
            losing.join().unwrap();
            let woken = count.0.load(Ordering::SeqCst);
            match polled {
                Poll::Ready(end) => assert_eq!((end, woken), (Err(Crash::Lost), 0)),
                Poll::Pending => {
                    assert_eq!(woken, 1);
                    assert_eq!(block_on(join), Err(Crash::Lost));
                }
            }
        },
        2000,
    );
}
