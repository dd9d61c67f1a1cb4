//! Memory that is not used any more goes back to the system, also when nothing happens afterwards.
//!
//! The allocator gives free pages back after a delay, and looks for such pages when one is freed. A gateway that comes to
//! rest frees the last of them long before the delay is over: it would keep the memory of its busiest second for as long
//! as it rests.

use std::{hint::black_box, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

/// How often the allocator is made to look; its own delay is a second.
const EVERY: Duration = Duration::from_secs(2);
/// More than it keeps for the next time, so that taking and giving it back is what makes it look. It is never written to,
/// so it takes no memory.
const LOOK: usize = 1 << 20;

/// Gives free memory back for as long as it runs.
///
/// # Cancel safety
/// Dropping it stops that.
pub(crate) async fn give_back() {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        drop(black_box(Vec::<u8>::with_capacity(LOOK)));
    }
}
