//! The Gate engine's shape: who may go now, what a permit is, and how gates compose.

use std::future::Future;

use tidegate_core::{Call, Instant, Outcome, Refused};

use crate::clock;

/// Something that a call passes before it may go.
pub trait Gate<K: ?Sized> {
    /// What the call holds while it is in flight. Dropping it is [`Outcome::Abandoned`].
    type Permit: Permit;

    /// Decides without waiting and without allocating.
    ///
    /// # Errors
    /// [`Refused`] when the call may not go now; nothing was taken then.
    fn try_enter(&self, call: &Call, key: &K) -> Result<Self::Permit, Refused>;

    /// Waits for admission, at most to the call's deadline.
    ///
    /// # Errors
    /// [`Refused`] when the call may not go, or could not go in time; nothing was taken then.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and takes nothing.
    fn enter(&self, call: &Call, key: &K) -> impl Future<Output = Result<Self::Permit, Refused>> + Send;
}

/// What an admitted call holds, given back exactly once: by [`settle`](Permit::settle), or by drop.
pub trait Permit: Send {
    /// Gives the permit back and tells the gate how the call ended. `now` is when it ended.
    fn settle(self, outcome: Outcome, now: Instant);

    /// Whether how the call ended makes a difference; else nobody needs to find out. Default: it does.
    #[inline]
    fn learns(&self) -> bool {
        true
    }

    /// Gives the permit back now; a permit that has no use for the time spares the reading of the clock.
    fn settle_now(self, outcome: Outcome)
    where
        Self: Sized,
    {
        self.settle(outcome, clock::now());
    }
}

/// Enters one gate after the other; a refusal gives back what was taken, last first. Permits stay plain values: what
/// holds them for the case of a refusal would cost more than most gates.
macro_rules! try_enter_all {
    ($call:expr, $key:expr; [$($taken:ident)*] [$($last_first:ident)*]) => { Ok(($($taken,)*)) };
    (
        $call:expr, $key:expr; [$($taken:ident)*] [$($last_first:ident)*]
        $permit:ident = $gate:expr $(, $permits:ident = $gates:expr)*
    ) => {
        match $gate.try_enter($call, $key) {
            Ok($permit) => {
                try_enter_all!($call, $key; [$($taken)* $permit] [$permit $($last_first)*] $($permits = $gates),*)
            }
            Err(refused) => {
                $(unsent($last_first);)*
                Err(refused)
            }
        }
    };
}

macro_rules! tuple_gate {
    ($($gate:ident . $index:tt : $permit:ident),+ ; $($reversed:ident),+) => {
        /// Entered left to right; a refusal undoes right to left what was taken; settled as one, last first.
        impl<K: ?Sized + Sync, $($gate: Gate<K> + Sync),+> Gate<K> for ($($gate,)+) {
            type Permit = ($($gate::Permit,)+);

            #[inline]
            #[expect(non_snake_case, reason = "one name for a gate's type and its permit")]
            fn try_enter(&self, call: &Call, key: &K) -> Result<Self::Permit, Refused> {
                try_enter_all!(call, key; [] [] $($gate = self.$index),+)
            }

            #[expect(non_snake_case, reason = "one name for a gate's type and its permit")]
            async fn enter(&self, call: &Call, key: &K) -> Result<Self::Permit, Refused> {
                $(let $gate = Taken(Some(self.$index.enter(call, key).await?));)+
                Ok(($($gate.keep(),)+))
            }
        }

        impl<$($permit: Permit),+> Permit for ($($permit,)+) {
            #[inline]
            #[expect(non_snake_case, reason = "one name for a permit and its type")]
            fn settle(self, outcome: Outcome, now: Instant) {
                let ($($permit,)+) = self;
                $($reversed.settle(outcome, now);)+
            }
        }
    };
}

tuple_gate!(A.0: PA ; PA);
tuple_gate!(A.0: PA, B.1: PB ; PB, PA);
tuple_gate!(A.0: PA, B.1: PB, C.2: PC ; PC, PB, PA);
tuple_gate!(A.0: PA, B.1: PB, C.2: PC, D.3: PD ; PD, PC, PB, PA);

/// Gives back what a later gate made useless.
#[cold]
fn unsent<P: Permit>(permit: P) {
    // Time may have passed in a queue, and a refund must not give back what has regenerated meanwhile.
    permit.settle(Outcome::Unsent, clock::now());
}

/// A permit taken while a later gate is waited for: unless all admit, it goes back as [`Outcome::Unsent`].
struct Taken<P: Permit>(Option<P>);

impl<P: Permit> Taken<P> {
    fn keep(mut self) -> P {
        self.0.take().expect("a permit is kept once")
    }
}

impl<P: Permit> Drop for Taken<P> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            unsent(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future,
        sync::{Arc, Mutex},
    };

    use tidegate_core::By;

    use super::*;

    /// What happened at the doors, in order.
    type Log = Arc<Mutex<Vec<String>>>;

    /// What a door does with a call.
    #[derive(Clone, Copy)]
    enum Rule {
        Admit,
        Refuse,
        Wait,
    }

    struct Door(&'static str, Rule, Log);

    struct Held(&'static str, Option<Log>);

    impl Gate<str> for Door {
        type Permit = Held;

        fn try_enter(&self, _call: &Call, key: &str) -> Result<Held, Refused> {
            let Self(name, rule, log) = self;
            log.lock().unwrap().push(format!("{name} asked for {key}"));
            match rule {
                Rule::Admit => Ok(Held(name, Some(Arc::clone(log)))),
                Rule::Refuse | Rule::Wait => Err(Refused::new(By::InFlight)),
            }
        }

        async fn enter(&self, call: &Call, key: &str) -> Result<Held, Refused> {
            match self.1 {
                Rule::Admit | Rule::Refuse => self.try_enter(call, key),
                Rule::Wait => future::pending().await,
            }
        }
    }

    impl Permit for Held {
        fn settle(mut self, outcome: Outcome, _now: Instant) {
            let log = self.1.take().expect("a permit is settled once");
            log.lock().unwrap().push(format!("{} {outcome:?}", self.0));
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            if let Some(log) = self.1.take() {
                log.lock().unwrap().push(format!("{} dropped", self.0));
            }
        }
    }

    fn doors(rules: [Rule; 3]) -> ((Door, Door, Door), Log) {
        let log = Log::default();
        let [a, b, c] = rules;
        ((Door("a", a, log.clone()), Door("b", b, log.clone()), Door("c", c, log.clone())), log)
    }

    fn call() -> Call {
        Call::at(Instant::EPOCH)
    }

    #[test]
    fn gates_are_entered_left_to_right_and_settled_as_one_last_first() {
        let (gates, log) = doors([Rule::Admit; 3]);
        let permit = gates.try_enter(&call(), "key").unwrap();
        permit.settle(Outcome::Success, Instant::EPOCH);
        let expected =
            ["a asked for key", "b asked for key", "c asked for key", "c Success", "b Success", "a Success"];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn a_refusal_undoes_what_was_taken_right_to_left_as_unsent_and_asks_nobody_further() {
        let (gates, log) = doors([Rule::Admit, Rule::Admit, Rule::Refuse]);
        let refused = gates.try_enter(&call(), "key").map(drop).unwrap_err();
        assert_eq!(refused.by, By::InFlight);
        let expected = ["a asked for key", "b asked for key", "c asked for key", "b Unsent", "a Unsent"];
        assert_eq!(*log.lock().unwrap(), expected);
        let (gates, log) = doors([Rule::Refuse, Rule::Admit, Rule::Admit]);
        assert!(gates.try_enter(&call(), "key").is_err());
        assert_eq!(*log.lock().unwrap(), ["a asked for key"]);
    }

    #[tokio::test]
    async fn waiting_does_the_same() {
        let (gates, log) = doors([Rule::Admit, Rule::Admit, Rule::Refuse]);
        assert!(gates.enter(&call(), "key").await.is_err());
        let expected = ["a asked for key", "b asked for key", "c asked for key", "b Unsent", "a Unsent"];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_while_a_later_gate_waits_gives_the_earlier_ones_back_as_unsent() {
        let (gates, log) = doors([Rule::Admit, Rule::Admit, Rule::Wait]);
        let call = call();
        let mut entering = tokio_test::task::spawn(gates.enter(&call, "key"));
        assert!(entering.poll().is_pending());
        drop(entering);
        assert_eq!(*log.lock().unwrap(), ["a asked for key", "b asked for key", "b Unsent", "a Unsent"]);
    }

    #[test]
    fn a_dropped_permit_is_dropped_by_every_gate() {
        let (gates, log) = doors([Rule::Admit; 3]);
        drop(gates.try_enter(&call(), "key").unwrap());
        let mut dropped = log.lock().unwrap().split_off(3);
        dropped.sort();
        assert_eq!(dropped, ["a dropped", "b dropped", "c dropped"]);
    }

    #[test]
    fn a_tuple_of_gates_is_a_gate_in_a_tuple() {
        let ((a, b, c), log) = doors([Rule::Admit, Rule::Admit, Rule::Refuse]);
        let nested = ((a, b), (c,));
        assert!(nested.try_enter(&call(), "key").is_err());
        assert_eq!(log.lock().unwrap()[3..], ["b Unsent", "a Unsent"]);
    }
}
