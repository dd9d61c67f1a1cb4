//! A tonic client whose calls in flight are limited, streams included: `cargo run --example limit_tonic`.

#[path = "../tests/support/echo.rs"]
mod echo;

use std::time::Duration;

use tidegate::{
    layer::limit::{LimitLayer, refused_in},
    limiter::Limiter,
};
use tower::Layer;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it did")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (peak, sent, refused) = run().await?;
    println!("100 calls: {sent} sent, never more than {peak} at once; {refused} refused, not sent");
    Ok(())
}

/// Makes 100 calls at once to a server of its own: its peak of live calls, calls sent, calls refused.
pub(crate) async fn run() -> Result<(usize, usize, usize), Box<dyn std::error::Error>> {
    let server = echo::start().await; // stands for the server you call
    let channel = server.channel();

    let limiter = Limiter::builder().limit(8).queue(50).max_wait(Duration::from_secs(5)).build()?;
    let channel = LimitLayer::new(limiter.clone()).layer(channel);
    let client = echo::Client::new(channel); // as YourClient::new(channel)
    let calls = (0..100).map(|_| {
        let mut client = client.clone();
        async move { client.unary(echo::hold()).await }
    });
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), slow(&server));
    let refused = answers.iter().filter_map(|answer| refused_in(answer.as_ref().err()?)).count();

    Ok((server.counts.peak(), server.counts.calls(), refused))
}

/// The server answers nobody until eight calls have come.
async fn slow(server: &echo::Running) {
    server.counts.until_live(8).await;
    server.counts.release(100);
}
