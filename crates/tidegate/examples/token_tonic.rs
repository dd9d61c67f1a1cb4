//! Users' access tokens for calls with tonic, refreshed once however many calls need them:
//! `cargo run -p tidegate --example token_tonic`.

#[path = "../tests/support/echo.rs"]
mod echo;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate::{
    Call, clock,
    token::{
        AccessToken, Grant, GrantError, Login, MemorySessions, Rejected, SessionId, Settings,
        TokenCoordinator, Tokens,
    },
};
use tonic::{
    Code, Request, Status, metadata::AsciiMetadataValue, service::InterceptorLayer, transport::Server,
};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it did")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (answered, grants, left) = run().await?;
    println!("{answered} calls with a token that was worthless: all answered, {grants} grant");
    println!("there was a refresh token left to be revoked at the logout: {left}");
    Ok(())
}

/// The server takes the second token only.
fn check(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization").is_some_and(|value| value == "Bearer at-1") {
        true => Ok(request),
        false => Err(Status::unauthenticated("not a token of ours")),
    }
}

/// A call that carries a token, which no log of its metadata shows.
fn with<T>(token: &AccessToken, message: T) -> Result<Request<T>, Status> {
    let mut value = AsciiMetadataValue::try_from(token.authorization().expose())
        .map_err(|_| Status::internal("a token that is no header"))?;
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

/// Makes 100 calls at once for a user whose token is worthless: the calls that were answered, the grants it took, and whether
/// there was something left to give back at the logout.
pub(crate) async fn run() -> Result<(usize, usize, bool), Box<dyn std::error::Error>> {
    let server = echo::start_with(Server::builder().layer(InterceptorLayer::new(check))).await; // stands for the server you call
    let client = echo::Client::new(server.channel()); // as YourClient::new(channel)
    let grants = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&grants);
    let ask = move |_: Grant, _: Duration| {
        let number = counted.fetch_add(1, Relaxed) + 1;
        let tokens = Tokens::bearer(format!("at-{number}")).expires_in(Duration::from_secs(300));
        // ... ask your token endpoint, as in the example token_reqwest
        async move { Ok::<_, GrantError>(tokens.refresh(format!("rt-{number}"))) }
    };
    let coordinator = TokenCoordinator::new(ask, MemorySessions::default(), Settings::default())?;

    // At the login: what the provider granted. This access token is good for minutes, and the server does not take it.
    let alice = SessionId::new("a-hash-of-her-cookie")?;
    let tokens = Tokens::bearer("at-0").expires_in(Duration::from_secs(300)).refresh("rt-0");
    coordinator.begin(&alice, Login::of(tokens)).await?;

    // With every call: the token that is good now. What the server refuses all the same is dropped.
    let calls = (0..100).map(|_| async {
        loop {
            let call = Call::at(clock::now()).within(Duration::from_secs(30)); // its clock is read once
            let token = coordinator.fresh(&alice, &call).await?;
            let answer = client.clone().unary(with(&token, echo::ask("hello"))?).await;
            let refused = answer.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated);
            if !refused || coordinator.rejected(&alice, token.generation(), call.now) == Rejected::Kept {
                return Ok::<_, Box<dyn std::error::Error>>(answer);
            }
        }
    });
    let answers = futures_util::future::try_join_all(calls).await?;

    // At the logout: what is left, to be revoked.
    let ended = coordinator.end(&alice).await?;
    let left = ended.and_then(|ended| ended.refresh).is_some_and(|refresh| refresh.expose() == "rt-1");
    coordinator.shutdown(Duration::from_secs(10)).await; // grants that are out are stored
    Ok((answers.iter().filter(|answer| answer.is_ok()).count(), grants.load(Relaxed), left))
}
