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

    /// Gives the permit back now; a permit that has no use for the time spares the reading of the clock.
    fn settle_now(self, outcome: Outcome)
    where
        Self: Sized,
    {
        self.settle(outcome, clock::now());
    }
}

macro_rules! tuple_gate {
    ($($gate:ident . $index:tt : $permit:ident),+ ; $($reversed:ident),+) => {
        /// Entered left to right; a refusal undoes right to left what was taken; settled as one, last first.
        impl<K: ?Sized + Sync, $($gate: Gate<K> + Sync),+> Gate<K> for ($($gate,)+) {
            type Permit = ($($gate::Permit,)+);

            #[expect(non_snake_case, reason = "one name for a gate's type and its permit")]
            fn try_enter(&self, call: &Call, key: &K) -> Result<Self::Permit, Refused> {
                $(let $gate = Taken(Some(self.$index.try_enter(call, key)?));)+
                Ok(($($gate.keep(),)+))
            }

            #[expect(non_snake_case, reason = "one name for a gate's type and its permit")]
            async fn enter(&self, call: &Call, key: &K) -> Result<Self::Permit, Refused> {
                $(let $gate = Taken(Some(self.$index.enter(call, key).await?));)+
                Ok(($($gate.keep(),)+))
            }
        }

        impl<$($permit: Permit),+> Permit for ($($permit,)+) {
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

/// A permit taken on the way through several gates: unless all admit, it goes back as [`Outcome::Unsent`].
struct Taken<P: Permit>(Option<P>);

impl<P: Permit> Taken<P> {
    fn keep(mut self) -> P {
        self.0.take().expect("a permit is kept once")
    }
}

impl<P: Permit> Drop for Taken<P> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            // Time may have passed in a queue, and a refund must not give back what has regenerated meanwhile.
            permit.settle(Outcome::Unsent, clock::now());
        }
    }
}
