//! Users' access tokens for calls with reqwest, refreshed once however many calls need them:
//! `cargo run -p tidegate --example token_reqwest`.

#[path = "token_reqwest/server.rs"]
mod server;

use std::time::Duration;

use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde::Deserialize;
use server::Provider;
use tidegate::{
    Call, Secret, clock,
    token::{
        Grant, GrantError, Login, MemorySessions, Rejected, SessionId, Settings, TokenCoordinator, Tokens,
    },
};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it did")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (answered, (grants, given_back)) = run().await?;
    println!("{answered} calls with a token that was worthless: all answered, {grants} grant");
    println!("what was left at the logout was revoked: {given_back}");
    Ok(())
}

/// What a token endpoint answers (RFC 6749 §5).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl From<Granted> for Tokens {
    fn from(granted: Granted) -> Self {
        Self {
            expires_in: granted.expires_in.map(Duration::from_secs),
            refresh: granted.refresh_token.map(Secret::new),
            ..Self::bearer(granted.access_token)
        }
    }
}

/// Asks a token endpoint, once, and says what became of that: the coordinator decides what follows from it.
async fn ask(client: Client, url: String, grant: Grant, within: Duration) -> Result<Tokens, GrantError> {
    let Grant::Refresh { refresh, .. } = grant else {
        return Err(GrantError::Misconfigured { code: "unsupported_grant_type".into() });
    };
    let form = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
    let answer = client.post(url).form(&form).timeout(within).send().await.map_err(unanswered)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(unanswered)?;
    match status {
        StatusCode::OK => serde_json::from_slice::<Granted>(&body)
            .map(Tokens::from)
            .map_err(|_| GrantError::Protocol { why: "no tokens in it".into(), refresh: None }),
        _ if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            Err(GrantError::Transient { retry_after: None, why: status.as_str().into() })
        }
        _ => Err(match serde_json::from_slice::<Refused>(&body) {
            Ok(Refused { error }) if error == "invalid_grant" => GrantError::Terminal { code: error.into() },
            Ok(Refused { error }) => GrantError::Misconfigured { code: error.into() },
            Err(_) => GrantError::Misconfigured { code: status.as_str().into() },
        }),
    }
}

/// Only of a connection that never was is it sure that the refresh token was not used up.
fn unanswered(error: reqwest::Error) -> GrantError {
    match error.is_connect() {
        true => GrantError::NotSent { why: "no connection".into() },
        false => GrantError::Unknown { why: "no answer".into() },
    }
}

/// Makes 100 calls at once for a user whose token is worthless: the calls that were answered, the grants it took, and whether
/// what was left at the logout was given back.
pub(crate) async fn run() -> Result<(usize, (usize, bool)), Box<dyn std::error::Error>> {
    let provider = Provider::start().await?; // stands for your identity provider, and for the service you call
    let (client, url) = (Client::new(), provider.url("/token"));
    let granting = client.clone();
    let endpoint = move |grant, within| ask(granting.clone(), url.clone(), grant, within);
    let coordinator = TokenCoordinator::new(endpoint, MemorySessions::default(), Settings::default())?;

    // At the login: what the provider granted. This access token is good for minutes, and the service does not take it.
    let alice = SessionId::new("a-hash-of-her-cookie")?;
    let tokens = Tokens::bearer("forgotten").expires_in(Duration::from_secs(300)).refresh("rt-0");
    coordinator.begin(&alice, Login::of(tokens)).await?;

    // With every call: the token that is good now. What the service refuses all the same is dropped.
    let calls = (0..100).map(|_| async {
        loop {
            let call = Call::at(clock::now()).within(Duration::from_secs(30)); // its clock is read once
            let token = coordinator.fresh(&alice, &call).await?;
            let orders = client.get(provider.url("/orders"));
            let answer = orders.header(AUTHORIZATION, token.authorization().expose()).send().await?;
            let refused = answer.status() == StatusCode::UNAUTHORIZED;
            if !refused || coordinator.rejected(&alice, token.generation(), call.now) == Rejected::Kept {
                return Ok::<_, Box<dyn std::error::Error>>(answer.status());
            }
        }
    });
    let answers = futures_util::future::try_join_all(calls).await?;

    // At the logout: what is left is given back.
    let ended = coordinator.end(&alice).await?;
    if let Some(refresh) = ended.and_then(|ended| ended.refresh) {
        client.post(provider.url("/revoke")).form(&[("token", refresh.expose())]).send().await?;
    }
    coordinator.shutdown(Duration::from_secs(10)).await; // grants that are out are stored
    Ok((answers.into_iter().filter(StatusCode::is_success).count(), provider.told()))
}
