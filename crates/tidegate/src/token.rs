//! Which access token is good now, and who gets the next one: one grant per expiry, over every process that shares the
//! session, and nobody who waits can break it.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Call, clock, token::{Grant, GrantError, Login, MemorySessions, SessionId, Settings, TokenCoordinator, Tokens}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any async function that asks your endpoint, once.
//! let ask = |_grant: Grant, _within: Duration| async {
//!     Ok::<_, GrantError>(Tokens::bearer("second").expires_in(Duration::from_secs(300)).refresh("next"))
//! };
//! let coordinator = TokenCoordinator::new(ask, MemorySessions::default(), Settings::default())?;
//! let alice = SessionId::new("alice")?;
//! let tokens = Tokens::bearer("first").expires_in(Duration::from_secs(300)).refresh("once");
//! coordinator.begin(&alice, Login::of(tokens)).await?;
//! let call = Call::at(clock::now()).within(Duration::from_secs(2));
//! assert_eq!(coordinator.fresh(&alice, &call).await?.expose(), "first");
//! # Ok(()) }
//! ```

mod answer;
mod ask;
mod coordinator;
mod endpoint;
mod grant;
mod health;
mod hints;
mod hold;
mod id;
mod journal;
mod memory;
mod opening;
mod orphans;
mod record;
mod refresher;
mod rejection;
mod run;
mod runs;
mod seal;
mod service;
mod settings;
mod stats;
mod store;
mod tenure;
mod tokens;

pub use answer::{AccessToken, Origin, Provenance, TokenError, Trouble};
pub use coordinator::{Ended, Login, TokenCoordinator};
pub use endpoint::{GrantError, TokenEndpoint, VerifyError};
pub use grant::{Exchange, Grant};
pub use health::LONGEST_PAUSE;
pub use id::{InvalidSessionId, LONGEST_ID, SessionId};
pub use journal::JournalError;
pub use memory::MemorySessions;
pub use rejection::Rejected;
pub use seal::{Seal, Unreadable};
pub use service::{Mark, ServiceKey, ServiceToken, ServiceTokens};
pub use settings::{InvalidSettings, Settings};
pub use stats::{GrantOutcome, Stats};
pub use store::{
    Change, Fence, Leased, Phase, SessionStore, SessionStoreError, Stored, Under, Write, Written,
};
pub use tidegate_core::token::{Blame, InvalidSchedule, InvalidTries, Lead, Limits, Over, Schedule};
pub use tokens::{Identity, Tokens};
