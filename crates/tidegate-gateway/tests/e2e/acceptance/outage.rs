//! The provider is not there at all: who has a good token sees nothing of it, who has none is told when to come back, and
//! its return costs it one question.

use std::{net::SocketAddr, time::Instant};

use tokio::sync::watch;

use super::*;

/// For how long it is away, in seconds, before a gateway that probes every second. With `TIDEGATE_OUTAGE=60` it is away for
/// a minute, before a gateway with the usual settings: it takes two.
const AWAY: u64 = 4;
/// Sessions whose tokens are good all the time.
const GOOD: usize = 50;
/// Sessions whose tokens fall due meanwhile, and are good to its end.
const DUE: usize = 50;
/// Sessions whose tokens are over.
const OVER: usize = 40;
/// Refreshes at once, as by default: so many may have been sent when the third of them fails.
const GRANTS: u64 = 10;

/// What the calls of good sessions met.
struct Seen {
    calls: usize,
    /// How long they took, the shortest first.
    took: Vec<Duration>,
}

/// Calls with all of these again and again; nobody may see anything but an answer.
async fn keep_calling(addr: SocketAddr, cookies: Vec<String>, end: watch::Receiver<bool>) -> Seen {
    let sender = client::http2(addr).await;
    let mut took = Vec::new();
    while !*end.borrow() {
        let calls = cookies.iter().map(|cookie| {
            let mut sender = sender.clone();
            async move {
                let began = Instant::now();
                let request = client::request2("GET", "/").header("cookie", cookie);
                let request = request.header("sec-fetch-mode", "cors").body(client::empty()).unwrap();
                let answer =
                    Answer::read(sender.send_request(request).await.expect("an answer")).await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                began.elapsed()
            }
        });
        took.extend(join_all(calls).await);
        // A pace, so that the machine is left to the others.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    took.sort();
    Seen { calls: took.len(), took }
}

/// All of them are told that there is nothing now, and when to come back: nobody is sent to log in.
async fn told_to_come_back(gateway: &Gateway, cookies: &[String]) {
    for answer in fetch_all(&[gateway], cookies).await {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u64>().unwrap() <= 40);
    }
}

#[tokio::test]
async fn an_outage_is_seen_by_nobody_whose_token_is_good_and_its_end_costs_one_probe() {
    let minute = std::env::var("TIDEGATE_OUTAGE").ok().map(|seconds| seconds.parse().unwrap());
    let away = minute.unwrap_or(AWAY);
    let (settings, open_for) = match minute {
        Some(_) => ("refresh_before: 90%", 30),
        None => ("refresh_before: 90%\nopen_for: 1s\nmax_wait: 500ms", 1),
    };
    let (mut idp, _behind, gateway) = alone(settings).await;
    idp.closes();
    idp.life(SHORT);
    let over = log_in_all(&gateway, OVER).await;
    idp.life(24 * 3600);
    let good = log_in_all(&gateway, GOOD).await;
    // Due after a tenth of it to a fifth.
    idp.life(5 * away);
    let due = log_in_all(&gateway, DUE).await;
    idp.life(24 * 3600);
    let logins = sessions(&gateway).await["logins"].clone();
    let (end, ended) = watch::channel(false);
    let (end_of_due, ended_due) = watch::channel(false);
    let calling = tokio::spawn(keep_calling(gateway.http(), good, ended));
    let calling_due = tokio::spawn(keep_calling(gateway.http(), due, ended_due));

    let began = Instant::now();
    idp.goes_away().await;
    while began.elapsed() < Duration::from_secs(away) {
        told_to_come_back(&gateway, &over).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    end_of_due.send_replace(true);
    let calls_of_due = calling_due.await.expect("every call of a due session was served").calls;
    let now = sessions(&gateway).await;
    let tried = now["refreshes"]["not_sent"].as_u64().unwrap();
    assert!(["down", "probing"].contains(&now["provider"].as_str().unwrap()), "{now}");
    let most = 3 + GRANTS - 1 + began.elapsed().as_secs() / open_for;
    assert!((3..=most).contains(&tried), "{tried} refreshes in {:?}, {most} at most", began.elapsed());

    // It is back, and slow: one probe finds out, however many come.
    let before = idp.counts();
    idp.always(Does::GrantsLate);
    idp.comes_back().await;
    let back = Instant::now();
    eventually("the probe", async || {
        told_to_come_back(&gateway, &over[1..]).await;
        let _one_that_may_be_the_probes = tokio::time::timeout(
            Duration::from_millis(100),
            client::get_with(gateway.http(), "/", &[("cookie", &over[0])]),
        )
        .await;
        idp.counts().at_once == 1
    })
    .await;
    let probed_after = back.elapsed();
    for _ in 0..2 {
        told_to_come_back(&gateway, &over).await;
    }
    assert_eq!((idp.counts().arrived - before.arrived, idp.counts().at_once), (1, 1), "one probe");
    idp.always(Does::Grants);
    idp.release();
    let answered = Instant::now();
    for cookie in &over {
        fetch_until(&gateway, cookie, StatusCode::OK).await;
    }
    let healed_after = answered.elapsed();
    end.send_replace(true);
    let Seen { calls, took } = calling.await.expect("every call of a good session was served");
    let after = idp.counts();
    let refreshed = after.granted - before.granted;
    assert!((OVER..=OVER + DUE).contains(&refreshed), "{refreshed} refreshes");
    assert_eq!((after.arrived - before.arrived, after.reused), (refreshed, 0));
    assert_eq!(sessions(&gateway).await["logins"], logins, "nobody logged in again");
    println!(
        "away for {away} s: {calls} calls of {GOOD} good sessions and {calls_of_due} of {DUE} that fell due, all served, \
         median {:?}, p99 {:?}, slowest {:?}; {tried} refreshes tried meanwhile; one probe {probed_after:?} after it was back, all served {healed_after:?} after its \
         answer",
        took[calls / 2],
        took[calls * 99 / 100],
        took[calls - 1],
    );
}
