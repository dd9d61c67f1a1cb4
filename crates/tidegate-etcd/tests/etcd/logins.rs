//! A client logs in once, again only when etcd asks for it, and never in a crowd. Logins are counted by etcd itself.

use std::time::Duration;

use futures_util::{FutureExt as _, future::join_all};
use tidegate::{
    Credentials, Secret,
    registry::{Source as _, SourceErrorKind, registration},
};
use tidegate_etcd::{EtcdRegistry, Layout, LeaseSettings, LoginBudget, Settings};

use crate::{
    server::{Etcd, Version, on_both, until},
    support::{Root, TTL, get, instance, lasting, pass, registered, registry, soon, url},
};

/// Defect E8: a login per stream or per heartbeat.
async fn heartbeats_readings_and_watches_take_one_login_in_all(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(etcd.settings());
    let _owner = registered(&registry, instance("orders", "1")).await;
    let orders = "orders".parse().unwrap();
    let mut watches = Vec::new();
    for _ in 0..10 {
        watches.push(registry.watch(&orders).await.unwrap());
        get(&registry, "orders").await;
    }
    let (logins, streams) = (etcd.logins(), registry.stats().keep_alive_streams);
    // The time of three leases, so about nine heartbeats.
    pass(TTL * 3).await;
    assert_eq!((etcd.logins() - logins, registry.stats().keep_alive_streams), (0, streams));
    assert_eq!((registry.stats().logins, streams), (1, 1));
}

/// Defects E7 and E11: callers that find the token gone log in each for itself, or never.
async fn when_the_token_is_forgotten_many_callers_share_one_login(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = lasting(etcd.settings());
    let owner = registered(&registry, instance("orders", "1")).await;
    Root::of(&etcd).await.change_password("gate", "hunter2").await;
    let logins = etcd.logins();
    let orders = "orders".parse().unwrap();
    let readings = join_all((0..100).map(|_| registry.get(&orders))).await;
    assert!(readings.iter().all(|reading| reading.as_ref().is_ok_and(|one| one.instances.len() == 1)));
    assert_eq!(etcd.logins() - logins, 1);
    soon("it is registered", owner.registered()).await.unwrap();
    assert_eq!(registry.stats().leases_lost, 0);
}

async fn a_caller_that_goes_away_stops_no_login(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let (registry, orders) = (registry(etcd.settings()), "orders".parse().unwrap());
    let logins = etcd.logins();
    // Polled once, so that it waits for its login, and dropped.
    assert!(registry.get(&orders).now_or_never().is_none());
    assert_eq!(registry.get(&orders).await.unwrap().instances, []);
    assert_eq!(etcd.logins() - logins, 1);
}

/// Defect E11: a token that ran out while nothing was sent.
async fn a_token_that_ran_out_is_renewed_once_also_under_a_watch(version: Version) {
    let etcd = Etcd::start_with_users(version, &["--auth-token-ttl", "1"]).await;
    let registry = registry(etcd.settings());
    let orders = "orders".parse().unwrap();
    get(&registry, "orders").await;
    let logins = etcd.logins();
    until("the token has run out", async || {
        pass(Duration::from_secs(3)).await;
        let mut watch = registry.watch(&orders).await.unwrap();
        use tidegate::registry::Watch as _;
        soon("all", watch.next()).await.unwrap();
        soon("the stream", watch.next()).await.unwrap();
        registry.stats().tokens_refused > 0
    })
    .await;
    assert_eq!(etcd.logins() - logins, registry.stats().tokens_refused);
}

/// Defect E11, with JWT: any change of users makes every token one of an older revision.
async fn a_token_of_an_older_revision_of_the_users_is_renewed_once(version: Version) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let jwt = format!("jwt,priv-key={},sign-method=HS256,ttl=10m", secret.path().display());
    let etcd = Etcd::start_with_users(version, &["--auth-token", &jwt]).await;
    let registry = registry(etcd.settings());
    let owner = registered(&registry, instance("orders", "1")).await;
    let mut root = Root::of(&etcd).await;
    for round in 1..=3 {
        let logins = etcd.logins();
        root.change_password("root", "hunter2").await;
        get(&registry, "orders").await;
        assert_eq!(etcd.logins() - logins, 1, "round {round}");
        root = Root::of(&etcd).await;
    }
    pass(TTL * 2).await;
    soon("it is registered", owner.registered()).await.unwrap();
    assert_eq!(registry.stats().leases_lost, 0);
}

async fn a_wrong_password_is_told_and_not_tried_again_and_again(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let wrong = Credentials { user: "gate".into(), password: Secret::new("hunter3") };
    let registry = registry(etcd.settings().credentials(wrong));
    let (mut owner, registrant) = registration(instance("orders", "1"));
    registry.register(registrant).unwrap();
    soon("the failure is told", owner.changed()).await.unwrap();
    let logins = etcd.logins();
    for _ in 0..100 {
        let error = registry.get(&"orders".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Denied);
        assert!(error.message.contains("\"gate\"") && !error.message.contains("hunter3"), "{error}");
        assert!(error.retry_after.is_some());
    }
    pass(TTL).await;
    assert_eq!((etcd.logins(), registry.stats().login_failures), (logins, 1));
}

async fn authentication_that_is_switched_on_later_is_noticed(version: Version) {
    let etcd = Etcd::start(version).await;
    let registry = registry(etcd.settings());
    let owner = registered(&registry, instance("orders", "1")).await;
    etcd.enable_users().await;
    assert_eq!(get(&registry, "orders").await.instances.len(), 1);
    pass(TTL * 2).await;
    soon("it is registered", owner.registered()).await.unwrap();
    assert_eq!((registry.stats().leases_lost, registry.stats().logins), (0, 2));
}

async fn a_client_without_a_password_says_what_is_missing(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let registry = registry(Settings::new([etcd.server()]));
    let error = registry.get(&"orders".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Denied);
    assert!(error.message.contains("etcd://USER:PASSWORD@HOST"), "{error}");
}

async fn a_user_who_may_not_is_told_so(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let root = Root::of(&etcd).await;
    root.add_user("guest").await;
    let guest = Credentials { user: "guest".into(), password: Secret::new("hunter2") };
    let client = etcd.settings().credentials(guest).build().unwrap();
    let registry = EtcdRegistry::new(client, &url(), Layout::Tidegate, LeaseSettings::default()).unwrap();
    let error = registry.get(&"orders".parse().unwrap()).await.unwrap_err();
    assert!(error.kind == SourceErrorKind::Denied && error.message.contains("permission denied"), "{error}");
    assert_eq!(registry.stats().logins, 1);
}

/// The wait of a fleet is no failure of etcd, and no caller waits for it.
async fn a_login_that_is_put_off_is_told_at_once_with_its_time(version: Version) {
    let etcd = Etcd::start_with_users(version, &[]).await;
    let (registry, orders) = (registry(etcd.settings().fleet(1_000_000)), "orders".parse().unwrap());
    let (mut logins, mut told) = (0, Ok(()));
    // It may be the turn of this client by chance, and then again.
    for _ in 0..10 {
        get(&registry, "orders").await;
        Root::of(&etcd).await.change_password("gate", "hunter2").await;
        logins = etcd.logins();
        told = registry.get(&orders).await.map(drop);
        if told.is_err() {
            break;
        }
    }
    let error = told.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Throttled, "{error}");
    assert!(error.retry_after.is_some(), "{error}");
    assert_eq!(etcd.logins(), logins, "nothing was sent");
}

/// A registry whose lease lives for longer than the logins of its fleet take.
fn patient(settings: Settings) -> EtcdRegistry {
    let lease = LeaseSettings::default().ttl(Duration::from_secs(10));
    EtcdRegistry::new(settings.build().unwrap(), &url(), Layout::Tidegate, lease).unwrap()
}

/// Defect E7: all processes log in at once when etcd has forgotten their tokens.
async fn the_logins_of_many_clients_keep_to_their_budget(version: Version) {
    const CLIENTS: u32 = 30;
    let etcd = Etcd::start_with_users(version, &[]).await;
    let budget = LoginBudget::new(Duration::from_millis(100), 3);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| patient(etcd.settings().login_budget(budget.clone()))).collect();
    let mut owners = Vec::new();
    for (id, client) in clients.iter().enumerate() {
        owners.push(registered(client, instance("orders", &id.to_string())).await);
    }
    Root::of(&etcd).await.change_password("gate", "hunter2").await;
    let (start, before) = (tokio::time::Instant::now(), etcd.logins());
    let mut most = 0.0_f64;
    let orders = &"orders".parse().unwrap();
    let readings = join_all(clients.iter().map(async |client| {
        let retry = async || client.get(orders).await.is_ok_and(|found| found.instances.len() == 30);
        until("it reads again", retry).await;
    }));
    tokio::pin!(readings);
    loop {
        tokio::select! {
            _ = &mut readings => break,
            () = pass(Duration::from_millis(200)) => {
                // Three at once, and ten a second after that.
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let logins = (etcd.logins() - before) as f64;
                most = most.max(logins - 3.0 - start.elapsed().as_secs_f64() * 10.0);
            }
        }
    }
    assert!(most <= 1.0, "{most} more logins than the budget allows");
    assert_eq!(etcd.logins() - before, u64::from(CLIENTS));
    assert!(clients.iter().all(|client| client.stats().leases_lost == 0));
}

on_both! {
    heartbeats_readings_and_watches_take_one_login_in_all,
    when_the_token_is_forgotten_many_callers_share_one_login,
    a_caller_that_goes_away_stops_no_login,
    a_token_that_ran_out_is_renewed_once_also_under_a_watch,
    a_token_of_an_older_revision_of_the_users_is_renewed_once,
    a_wrong_password_is_told_and_not_tried_again_and_again,
    authentication_that_is_switched_on_later_is_noticed,
    a_client_without_a_password_says_what_is_missing,
    a_user_who_may_not_is_told_so,
    a_login_that_is_put_off_is_told_at_once_with_its_time,
    the_logins_of_many_clients_keep_to_their_budget,
}
