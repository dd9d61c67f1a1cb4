//! Which access token is good now, and who gets the next one: one grant per expiry, over every process that shares the
//! session, and nobody who waits can break it.

mod endpoint;
mod grant;
mod tokens;

pub use endpoint::{GrantError, TokenEndpoint, VerifyError};
pub use grant::{Exchange, Grant};
pub use tokens::{Identity, Tokens};
