//! Two calls a second for each user, and the rest waits its turn: `cargo run -p tidegate --example throttle`.

use std::{error::Error, time::Duration};

use tidegate::{
    Call, Throttle, clock,
    throttle::{Key, Quota},
};

#[expect(clippy::print_stdout, reason = "it shows what happens")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let throttle = Throttle::new(Quota::of("2/s".parse()?).build()?);
    let (alice, began) = (Key::of(b"alice"), clock::now());
    for number in 1..=6 {
        let call = Call::at(clock::now()).within(Duration::from_secs(1));
        let permit = throttle.enter(&call, &alice).await?;
        println!("call {number} went after {:?}", clock::now().since(began));
        drop(permit); // It was sent, so it counts: only a call settled as unsent gives its cost back.
    }
    let refused = throttle.try_enter(&Call::at(clock::now()), &alice).expect_err("the quota is used up");
    println!("one that does not wait: {refused}");
    Ok(())
}
