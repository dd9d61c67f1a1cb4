//! A tonic client that attaches a token of its own to every call: `cargo run -p tidegate --example token_tonic`.

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
    token::{Grant, GrantError, ServiceKey, ServiceTokens, Settings, Tokens},
};
use tonic::{Status, metadata::MetadataValue};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it did")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (calls, grants) = run().await?;
    println!("{calls} calls, each with a token: {grants} grant");
    Ok(())
}

/// Makes 100 calls at once to a server of its own: the calls that were answered, and the grants it took.
pub(crate) async fn run() -> Result<(usize, usize), Box<dyn std::error::Error>> {
    let server = echo::start().await; // stands for the server you call
    let grants = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&grants);
    let ask = move |_: Grant, _: Duration| {
        counted.fetch_add(1, Relaxed);
        // ... ask your token endpoint, as in the example token_http
        async { Ok::<_, GrantError>(Tokens::bearer("for echo").expires_in(Duration::from_secs(300))) }
    };
    let tokens = ServiceTokens::new(ask, Settings::default())?;
    let key = ServiceKey::default().scope("echo");

    let client = echo::Client::new(server.channel()); // as YourClient::new(channel)
    let calls = (0..100).map(|_| {
        let (mut client, tokens, key) = (client.clone(), tokens.clone(), key.clone());
        async move {
            let call = Call::at(clock::now()).within(Duration::from_secs(2));
            let token =
                tokens.fresh(&key, &call).await.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut request = tonic::Request::new(echo::ask("hello"));
            let mut value = MetadataValue::try_from(token.authorization().expose())
                .map_err(|_| Status::internal("a token that is no header"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
            client.unary(request).await
        }
    });
    let answers = futures_util::future::join_all(calls).await;
    Ok((answers.iter().filter(|answer| answer.is_ok()).count(), grants.load(Relaxed)))
}
