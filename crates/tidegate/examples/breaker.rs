//! A breaker around a dependency that fails for a while: `cargo run -p tidegate --example breaker`.

use std::{sync::Arc, time::Duration};

use tidegate::{
    Breaker, Call, Event, Outcome, Permit,
    breaker::{InvalidSettings, Settings},
    clock,
};

/// A dependency that is down from its tenth to its fiftieth request.
fn dependency(request: u32) -> Result<&'static str, &'static str> {
    if (10..50).contains(&request) { Err("503") } else { Ok("200") }
}

#[expect(clippy::print_stdout, reason = "it shows what happens")]
#[tokio::main]
async fn main() -> Result<(), InvalidSettings> {
    let settings = Settings { open_for: Duration::from_millis(200), ..Settings::default() };
    let observer = |event: Event<'_>| {
        if let Event::BreakerChanged { name, from, to, .. } = event {
            println!("{name}: {} -> {}", from.as_str(), to.as_str());
        }
    };
    let breaker = Breaker::observed(settings, "dependency", Arc::new(observer))?;
    let (mut sent, mut refused) = (0, 0);
    for request in 0..100 {
        let call = Call::at(clock::now());
        match breaker.admit(&call) {
            Ok(permit) => {
                sent += 1;
                let outcome = match dependency(request) {
                    Ok(_) => Outcome::Success,
                    Err(_) => Outcome::Overload { retry_after: None },
                };
                permit.settle(outcome, clock::now());
            }
            Err(refusal) => {
                refused += 1;
                if refused == 1 {
                    println!("{refusal}");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{sent} sent, {refused} refused");
    Ok(())
}
