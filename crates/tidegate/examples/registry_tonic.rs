//! A tonic client balanced over the endpoints of a service, as the registry tells them: `cargo run --example registry_tonic`.

#[path = "../tests/support/echo.rs"]
mod echo;

use std::convert::Infallible;

use futures_util::{StreamExt as _, stream};
use tidegate::{
    Registry,
    registry::{Changes, EndpointChange, Instance, Settings, testing::FakeRegistry},
};
use tonic::transport::{Channel, Endpoint};
use tower::{
    balance::p2c::Balance,
    discover::Change,
    load::{CompleteOnResponse, PendingRequests},
};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example shows what it did")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (first, second) = run().await?;
    println!("100 calls: {first} to the first server, {second} to the one that registered later");
    Ok(())
}

/// What the registry says of one endpoint, for tower: a lazy channel of its own, which reconnects by itself.
fn endpoint(change: EndpointChange) -> Change<String, PendingRequests<Channel>> {
    match change {
        EndpointChange::Remove(id) => Change::Remove(id),
        EndpointChange::Insert(instance) => {
            let uri: http::Uri =
                format!("http://{}", instance.address).parse().expect("an address makes a URI");
            let channel = Endpoint::from(uri).connect_lazy();
            Change::Insert(instance.id.clone(), PendingRequests::new(channel, CompleteOnResponse::default()))
        }
    }
}

/// Makes 100 calls to two servers of its own, the second of which registers later: the calls each of them got.
pub(crate) async fn run() -> Result<(usize, usize), Box<dyn std::error::Error>> {
    let (first, second) = (echo::start().await, echo::start().await); // stand for the servers you call
    let source = FakeRegistry::new(); // stands for tidegate_etcd::EtcdSource
    let registry = Registry::new(source, Settings::default())?;
    let instance = |id: &str, server: &echo::Running| -> Result<_, Box<dyn std::error::Error>> {
        Ok(Instance::new("echo".parse()?, id, server.addr.to_string().parse()?))
    };
    let _first = registry.register(instance("first", &first)?)?;

    let changes = registry.watch(&"echo".parse()?).changes();
    let discover = stream::unfold(changes, async |mut changes: Changes| {
        let change = endpoint(changes.next().await?);
        Some((Ok::<_, Infallible>(change), changes))
    });
    let mut client = echo::Client::new(Balance::new(discover.boxed()));

    let mut later = None;
    for call in 0..100 {
        if call == 50 {
            let registration = later.insert(registry.register(instance("second", &second)?)?);
            registration.registered().await?;
        }
        client.unary(echo::ask("hello")).await?;
    }
    Ok((first.counts.calls(), second.counts.calls()))
}
