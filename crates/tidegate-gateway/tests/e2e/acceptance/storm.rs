//! Everybody at once: all tokens end together, or all come after a restart.

use super::*;

/// Sessions of a storm. `TIDEGATE_STORM_SESSIONS=10000` is the storm that is promised; it takes minutes on a small machine.
const SESSIONS: usize = 500;
/// Refreshes that the provider takes at once.
const AT_ONCE: usize = 50;

fn sessions_of_a_storm() -> usize {
    std::env::var("TIDEGATE_STORM_SESSIONS").map_or(SESSIONS, |count| count.parse().unwrap())
}

#[tokio::test]
async fn when_all_tokens_end_at_once_everybody_is_served_in_turn_and_nobody_is_refused() {
    let (idp, _behind, redis, gateways) = together(1, "grants: 50\nmax_wait: 10m\ntimeout: 5m").await;
    let gateway = &gateways[0];
    idp.life(SHORT);
    let cookies = log_in_all(gateway, sessions_of_a_storm()).await;
    are_over().await;
    idp.life(24 * 3600);
    idp.delay(Duration::from_millis(100));
    let before = idp.counts();
    let mut seen = (0, 0);
    let watched = async {
        loop {
            let now = sessions(gateway).await;
            let of = |what: &str| now[what].as_u64().unwrap();
            seen = (seen.0.max(of("waiting")), seen.1.max(of("in_flight")));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let gateways = [gateway];
    let answers = tokio::select! {
        answers = fetch_all(&gateways, &cookies) => answers,
        () = watched => unreachable!("it watches on"),
    };
    all_served(&answers);
    let after = idp.counts();
    assert_eq!(
        (after.granted - before.granted, after.arrived - before.arrived, after.reused),
        (cookies.len(), cookies.len(), 0)
    );
    assert!(after.most_at_once <= AT_ONCE, "{} at once", after.most_at_once);
    assert!(after.most_at_once > 20, "{} at once: fewer than were allowed", after.most_at_once);
    assert!(seen.0 > AT_ONCE as u64 && seen.1 > 0, "the state while it lasts: {seen:?}");
    assert_eq!(sessions(gateway).await["waiting"], 0);
    no_login_wave(&idp, redis, &cookies).await;
}

/// A gateway that starts anew with all these sessions in its store asks the provider nothing, and sends nobody to log in.
async fn no_login_wave(idp: &Idp, redis: Redis, cookies: &[String]) {
    let before = idp.counts();
    let behind = Behind::start().await;
    let gateway = gateway(&behind, idp.issuer(), "max_wait: 10m", &patient(&redis)).await;
    all_served(&fetch_all(&[&gateway], cookies).await);
    let after = idp.counts();
    assert_eq!((after.arrived, after.reused), (before.arrived, 0));
    assert_eq!(sessions(&gateway).await["sessions"], cookies.len());
    assert!(sessions(&gateway).await["logins"].as_object().unwrap().is_empty(), "nobody was sent off");
}
