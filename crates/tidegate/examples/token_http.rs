//! Users' access tokens for calls over HTTP, refreshed once however many calls need them:
//! `cargo run -p tidegate --example token_http`.

#[path = "token_http/server.rs"]
mod server;

use std::time::Duration;

use server::{Post, Provider};
use tidegate::{
    Call, clock,
    token::{Grant, GrantError, Login, MemorySessions, SessionId, Settings, TokenCoordinator, Tokens},
};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it did")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (answered, grants) = run().await?;
    println!("{answered} calls with a token that was over: all answered, {grants} grant");
    Ok(())
}

/// Asks a token endpoint, once. With reqwest: `client.post(url).form(&fields).send().await`.
async fn refresh(provider: Post, grant: Grant, within: Duration) -> Result<Tokens, GrantError> {
    let Grant::Refresh { refresh, .. } = grant else {
        return Err(GrantError::Misconfigured { code: "unsupported_grant_type".into() });
    };
    let form = format!("grant_type=refresh_token&refresh_token={}", refresh.expose());
    let answer = tokio::time::timeout(within, provider.post("/token", form)).await;
    match answer {
        // It may have got there: nobody knows.
        Err(_) => Err(GrantError::Unknown { why: format!("no answer within {within:?}").into() }),
        Ok(Err(error)) if error.is_connect() => Err(GrantError::NotSent { why: error.to_string().into() }),
        Ok(Err(error)) => Err(GrantError::Unknown { why: error.to_string().into() }),
        Ok(Ok((200, body))) => {
            read(&body).ok_or(GrantError::Protocol { why: "not JSON".into(), refresh: None })
        }
        Ok(Ok((400, body))) if body.contains("invalid_grant") => {
            Err(GrantError::Terminal { code: "invalid_grant".into() })
        }
        Ok(Ok((status @ (429 | 500..), _))) => {
            Err(GrantError::Transient { retry_after: None, why: status.to_string().into() })
        }
        Ok(Ok((status, _))) => Err(GrantError::Misconfigured { code: status.to_string().into() }),
    }
}

fn read(body: &str) -> Option<Tokens> {
    let answer: serde_json::Value = serde_json::from_str(body).ok()?;
    let life = Duration::from_secs(answer["expires_in"].as_u64()?);
    Some(
        Tokens::bearer(answer["access_token"].as_str()?)
            .expires_in(life)
            .refresh(answer["refresh_token"].as_str()?),
    )
}

/// Makes 100 calls at once for a user whose token is over: the calls that were answered, and the grants it took.
pub(crate) async fn run() -> Result<(usize, usize), Box<dyn std::error::Error>> {
    let provider = Provider::start().await?; // stands for your identity provider, and for the service you call
    let post = provider.client();
    let endpoint = post.clone();
    let ask = move |grant, within| refresh(endpoint.clone(), grant, within);
    let coordinator = TokenCoordinator::new(ask, MemorySessions::default(), Settings::default())?;

    let alice = SessionId::new("a-hash-of-her-cookie")?;
    let tokens = Tokens::bearer("first").expires_in(Duration::from_millis(1)).refresh("rt-0");
    coordinator.begin(&alice, Login::of(tokens)).await?; // at her login
    provider.forget("first"); // as it is over

    let calls = (0..100).map(|_| async {
        loop {
            let call = Call::at(clock::now()).within(Duration::from_secs(5)); // its clock is read once
            let token = coordinator.fresh(&alice, &call).await?;
            match post.with_token("/orders", token.authorization().expose()).await? {
                // The service knows better: what it refuses is over.
                401 => tokio::time::sleep_until(clock::timer_at(token.expires_at())).await,
                status => return Ok::<_, Box<dyn std::error::Error>>(status),
            }
        }
    });
    let answers = futures_util::future::try_join_all(calls).await?;
    let answered = answers.into_iter().filter(|status| *status == 200).count();
    Ok((answered, provider.grants()))
}
