//! A fleet: thousands of registrations, with authentication on, over a restart of etcd.
//!
//! `ETCD_SOAK_SECONDS` lengthens the steady time, `ETCD_SOAK_CLIENTS` and `ETCD_SOAK_REGISTRATIONS` set how many clients
//! there are, each with a connection, a login and a lease of its own, and how many registrations in all.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidegate::registry::{Source as _, Standing, registration};
use tidegate_etcd::{EtcdRegistry, Layout, LeaseSettings, LoginBudget};

use crate::{
    server::{Etcd, PATIENCE, Version, on_both, until_within},
    support::{Root, instance, pass, soon, url},
};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[expect(clippy::print_stdout, reason = "the figures of a soak are read by people")]
async fn four_thousand_registrations_cost_no_login_and_survive_a_restart(version: Version) {
    let clients = number("ETCD_SOAK_CLIENTS", 8);
    let registrations = number("ETCD_SOAK_REGISTRATIONS", 4000);
    let steady = Duration::from_secs(number("ETCD_SOAK_SECONDS", 8));
    let mut etcd = Etcd::start_with_users(version, &[]).await;
    // Logins of all clients together: at most twenty a second.
    let budget = LoginBudget::new(Duration::from_millis(50), 1);
    // A large fleet needs leases that outlive its logins: the default sees to that.
    let short = LeaseSettings::default().ttl(Duration::from_secs(20));
    let lease = if clients > 100 { LeaseSettings::default() } else { short };
    let fleet: Vec<_> = (0..clients)
        .map(|_| {
            let settings = etcd.settings().login_budget(budget.clone()).fleet(clients);
            let settings = settings.call_timeout(Duration::from_secs(if clients > 100 { 300 } else { 5 }));
            EtcdRegistry::new(settings.build().unwrap(), &url(), Layout::Tidegate, lease.clone()).unwrap()
        })
        .collect();
    let start = Instant::now();
    let mut owners = Vec::new();
    for id in 0..registrations {
        let (owner, registrant) = registration(instance(&format!("service-{}", id % 20), &id.to_string()));
        fleet[usize::try_from(id % clients).unwrap()].register(registrant).unwrap();
        owners.push(owner);
    }
    let all = join_all(owners.iter().map(|owner| owner.registered()));
    assert!(soon_or_longer(clients, all).await.iter().all(Result::is_ok));
    println!("{version:?}: {registrations} registered by {clients} clients in {:?}", start.elapsed());
    let logins = etcd.logins();
    assert!(logins <= clients + 1, "{logins}");

    pass(steady).await;
    println!("{version:?}: {} logins in {steady:?}", etcd.logins() - logins);
    assert_eq!(etcd.logins(), logins);

    // etcd comes back, and knows no token any more.
    etcd.restart().await;
    let root = Root::of(&etcd).await;
    let (start, first) = (Instant::now(), etcd.logins());
    root.change_password("gate", "hunter2").await;
    // Spread over the time that the rate allows, and no login at all where etcd demands none.
    let long = steady.max(Duration::from_secs(3 * clients / 20));
    let (mut again, mut beyond) = (0, 0.0_f64);
    while start.elapsed() < long && again < clients {
        pass(Duration::from_millis(500)).await;
        again = etcd.logins() - first;
        let allowed = 20.0 * start.elapsed().as_secs_f64() + 1.0;
        #[expect(clippy::cast_precision_loss, reason = "a count of logins")]
        let sent = again as f64;
        beyond = beyond.max(sent - allowed);
    }
    let streams: u64 = fleet.iter().map(|one| one.stats().keep_alive_streams).sum();
    println!(
        "{version:?}: after the restart {again} logins in {:?}, {beyond:.0} beyond twenty a second; {streams} streams",
        start.elapsed()
    );
    assert!(beyond <= 1.0, "{beyond} more logins than twenty a second");
    // A login that meets the change of the password is one more.
    assert!(again <= 2 * clients, "{again}");
    // Nothing was lost: no lease, no key.
    until_within(long * 2 + PATIENCE, "all is found", async || {
        let mut found = 0;
        for service in 0..20 {
            let service = format!("service-{service}").parse().unwrap();
            found += fleet[0].get(&service).await.map_or(0, |listing| listing.instances.len());
        }
        found as u64 == registrations
    })
    .await;
    println!("{version:?}: all registrations are found {:?} after the restart", start.elapsed());
    assert!(owners.iter().all(|owner| matches!(owner.standing(), Standing::Registered { .. })));
    let stats: Vec<_> = fleet.iter().map(EtcdRegistry::stats).collect();
    assert_eq!(stats.iter().map(|one| one.leases_granted).sum::<u64>(), clients);
    assert_eq!(stats.iter().map(|one| one.keys_written).sum::<u64>(), registrations);
    join_all(fleet.iter().map(EtcdRegistry::close)).await;
    assert_eq!(fleet[0].list().await.unwrap(), []);
}

/// The logins of a large fleet take their time.
async fn soon_or_longer<T>(clients: u64, event: impl Future<Output = T>) -> T {
    if clients > 100 { event.await } else { soon("all are registered", event).await }
}

on_both! { four_thousand_registrations_cost_no_login_and_survive_a_restart, }
