//! Access tokens that may be bound to a key that this gateway does not have: those older than its key. An upstream that refuses one
//! is believed once, so that a key can be replaced; newer ones are not given up, whatever an upstream says.

use http::{HeaderMap, StatusCode};
use tidegate::{
    clock,
    token::{Rejected, SessionId},
};
use tidegate_core::Instant;

use super::{Session, User};
use crate::oidc::prove::says;

/// The session that a call was let in by, and what is to be known of the token that it carries.
#[derive(Clone, Debug)]
pub struct By {
    /// The session.
    pub id: SessionId,
    /// The token's generation, if it is older than the key that calls prove possession of.
    suspect: Option<u64>,
}

impl Session {
    /// Notes what a call is let in by.
    pub fn by(&self, user: &User, now: Instant) -> By {
        let carried = self.config.pass_token && self.prover.is_some();
        let age = || user.token.provenance(now).age;
        let suspect = (carried && age() > now.since(self.bound_since)).then(|| user.token.generation());
        By { id: user.session().clone(), suspect }
    }

    /// Learns from an upstream's answer to a call that a session let in.
    pub fn answered(&self, by: &By, status: StatusCode, headers: &HeaderMap) {
        let Some(generation) = by.suspect else { return };
        let refused =
            ["invalid_token", "invalid_dpop_proof"].iter().any(|error| says(status, headers, error));
        if refused && self.coordinator.rejected(&by.id, generation, clock::now()) == Rejected::Dropped {
            tracing::info!(
                session = %self.name,
                "an upstream refuses a token that is older than the key of dpop; the next call gets another one"
            );
        }
    }
}
