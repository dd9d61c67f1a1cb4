//! The endpoint as a coordinator sees it: what stands in place of a refresh token is what is asked for.

use std::{sync::Arc, time::Duration};

use super::key;
use crate::token::{Grant, GrantError, TokenEndpoint, Tokens};

pub(super) struct Asks<E>(pub(super) Arc<E>);

impl<E: TokenEndpoint> TokenEndpoint for Asks<E> {
    async fn grant(&self, grant: Grant, within: Duration) -> Result<Tokens, GrantError> {
        let Grant::Refresh { refresh: presented, .. } = grant else {
            return self.0.grant(grant, within).await;
        };
        let Some(grant) = key::wanted(&presented) else {
            return Err(GrantError::NotSent { why: "what stands in the store is no grant of ours".into() });
        };
        let is_own = matches!(grant, Grant::ClientCredentials { .. });
        match self.0.grant(grant, within).await {
            Ok(tokens) => Ok(Tokens { refresh: None, refresh_expires_in: None, id: None, ..tokens }),
            // Nobody can log in for a client: an operator has to mend it.
            Err(GrantError::Terminal { code }) if is_own => Err(GrantError::Misconfigured { code }),
            Err(GrantError::Protocol { why, .. }) => Err(GrantError::Protocol { why, refresh: None }),
            Err(error) => Err(error),
        }
    }
}
