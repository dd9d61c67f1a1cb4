//! One process takes the place of another, and no call is lost: by SIGUSR2, and by sockets that systemd keeps.

mod activation;
mod load;

use std::{
    fs,
    net::SocketAddr,
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    path::Path,
    process::Command,
    sync::Arc,
};

use http::Response;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use self::load::Load;
use crate::{
    setup::to,
    support::{client, eventually, gateway, ports, process::Process, upstream::Upstream, within},
};

/// What a process says once it serves in the place of another.
const SERVES: &str = "serving in the place of the process before";

/// A gateway whose process changes. Dropping it kills all of them.
struct Line {
    first: Process,
    http: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
}

impl Line {
    async fn start(config: &str) -> Self {
        Self::start_with(config, |_| {}).await
    }

    async fn start_with(config: &str, also: impl FnOnce(&mut Command)) -> Self {
        let (http, admin) = (ports::free(), ports::free());
        let directory = tempfile::tempdir().unwrap();
        let mut command = gateway::command();
        command.args(["serve", "--config"]).arg(directory.path().join("tidegate.yaml"));
        // A group of its own, so that successors are found at the end.
        command.process_group(0);
        also(&mut command);
        write(directory.path(), config, http, admin);
        let line = Self { first: Process::start("tidegate", &mut command), http, admin, directory };
        line.is_ready().await;
        line
    }

    fn write(&self, config: &str) {
        write(self.directory.path(), config, self.http, self.admin);
    }

    async fn is_ready(&self) {
        eventually("the gateway getting ready", async || {
            client::try_get_at(self.admin, "/ready").await.is_some_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// Asks the process with this id for an upgrade, and waits for the next to serve; its id.
    async fn upgrade(&self, pid: u32) -> u32 {
        let before = self.successors().len();
        signal(pid, "USR2");
        eventually("a successor", async || self.successors().len() > before).await;
        *self.successors().last().unwrap()
    }

    /// The ids of those that took another's place, in their order.
    fn successors(&self) -> Vec<u32> {
        let output = self.first.output();
        let said = output.lines().filter(|line| line.contains(SERVES));
        said.map(|line| line.split_once("pid=").unwrap().1.split(' ').next().unwrap().parse().unwrap())
            .collect()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        signal_group(self.first.id(), "KILL");
    }
}

fn write(directory: &Path, config: &str, http: SocketAddr, admin: SocketAddr) {
    let text = format!("pressure: off\nworkers: 2\nlisten:\n  http: {http}\n  admin: {admin}\n{config}");
    fs::write(directory.join("next"), text).unwrap();
    fs::rename(directory.join("next"), directory.join("tidegate.yaml")).unwrap();
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal {name} to {pid}");
}

fn signal_group(group: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), "--", &format!("-{group}")]).status();
}

async fn gone(pid: u32) {
    eventually("the end of a process", async || {
        let status = fs::read_to_string(format!("/proc/{pid}/stat"));
        status.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    })
    .await;
}

async fn hello() -> Upstream {
    Upstream::start(|_| async { Response::new(client::whole("hello")) }).await
}

/// How often the gateway is upgraded under load; more by TIDEGATE_TEST_UPGRADES.
fn upgrades() -> usize {
    std::env::var("TIDEGATE_TEST_UPGRADES").map_or(3, |count| count.parse().unwrap())
}

#[tokio::test]
async fn upgrades_in_a_row_lose_no_call_whatever_clients_do_with_their_connections() {
    let upstream = hello().await;
    let line = Line::start(&format!("log: {{ access: false }}\n{}", to(upstream.addr(), ""))).await;
    let load = Load::start(line.http);
    let mut pid = line.first.id();
    for _ in 0..upgrades() {
        load.goes_on().await;
        let next = line.upgrade(pid).await;
        load.goes_on().await;
        // Its last connections make one more call each, then it has none.
        gone(pid).await;
        pid = next;
    }
    load.goes_on().await;
    let counts = load.end().await;
    println!("{} upgrades: {counts:?}", upgrades());
    assert_eq!(counts.lost, 0, "of {:?} calls, the last: {}", counts.answered, counts.why);
}

#[tokio::test]
async fn a_call_in_flight_ends_where_it_began_and_the_old_process_waits_for_it() {
    let go = Arc::new(Semaphore::new(0));
    let waits = go.clone();
    let upstream = Upstream::start(move |request| {
        let waits = waits.clone();
        async move {
            if request.uri().path() == "/slow" {
                waits.acquire().await.unwrap().forget();
            }
            Response::new(client::whole("hello"))
        }
    })
    .await;
    let mut line = Line::start(&to(upstream.addr(), "")).await;
    let slow = tokio::spawn(client::get(line.http, "/slow"));
    eventually("the call at the upstream", async || upstream.live() == 1).await;
    let successor = line.upgrade(line.first.id()).await;
    line.first.printed("another process serves now").await;
    assert_eq!(client::get(line.http, "/").await.text(), "hello", "the successor serves");
    // Its pages are the successor's alone: no question is answered by the one that leaves.
    for _ in 0..5 {
        assert_eq!(client::get_at(line.admin, "/ready", &[]).await.status, 200);
    }
    assert!(line.first.ended().is_none(), "it waits for the call");
    go.add_permits(1);
    assert_eq!(slow.await.unwrap().text(), "hello");
    eventually("the end of the old process", async || line.first.ended().is_some()).await;
    assert_eq!(line.first.ended().unwrap().code(), Some(0), "{}", line.first.output());
    signal(successor, "TERM");
    gone(successor).await;
}

#[tokio::test]
async fn a_successor_that_does_not_come_to_serve_changes_nothing() {
    let upstream = hello().await;
    let config = to(upstream.addr(), "");
    let line = Line::start(&config).await;
    let pid = line.first.id();
    // It dies of its configuration.
    line.write("upstreams: { main: { endpoints: [\"nonsense\"] } }\nroutes: []\n");
    signal(pid, "USR2");
    line.first.printed("the new process ended with exit status: 2").await;
    line.first.printed("this process goes on serving").await;
    // It dies after it has the sockets: an address that it should have as well is taken.
    let taken = upstream.addr();
    write(line.directory.path(), &config, line.http, taken);
    signal(pid, "USR2");
    line.first.printed("the new process ended with exit status: 1").await;
    line.first.printed(&format!("cannot listen on {taken}")).await;
    for _ in 0..3 {
        assert_eq!(client::get(line.http, "/").await.text(), "hello");
        assert_eq!(client::get_at(line.admin, "/ready", &[]).await.status, 200);
    }
    assert!(line.successors().is_empty());
    // And the next one does.
    line.write(&config);
    line.upgrade(pid).await;
    gone(pid).await;
    assert_eq!(client::get(line.http, "/").await.text(), "hello");
}

#[tokio::test]
async fn two_upgrades_at_once_are_one() {
    let upstream = hello().await;
    let line = Line::start(&to(upstream.addr(), "")).await;
    let pid = line.first.id();
    signal(pid, "USR2");
    line.first.printed("upgrading: a new process starts").await;
    signal(pid, "USR2");
    line.first.printed("no upgrade").await;
    gone(pid).await;
    assert_eq!(line.successors().len(), 1, "{}", line.first.output());
    assert_eq!(line.first.output().matches("upgrading:").count(), 1);
    assert_eq!(client::get(line.http, "/").await.text(), "hello");
}

#[tokio::test]
async fn an_upgrade_takes_up_another_address_and_gives_the_old_one_up() {
    let upstream = hello().await;
    let config = to(upstream.addr(), "");
    let line = Line::start(&config).await;
    let (pid, elsewhere) = (line.first.id(), ports::free());
    write(line.directory.path(), &config, elsewhere, line.admin);
    line.upgrade(pid).await;
    assert_eq!(client::get(elsewhere, "/").await.text(), "hello");
    gone(pid).await;
    assert!(tokio::net::TcpStream::connect(line.http).await.is_err());
}

#[tokio::test]
async fn systemd_is_told_of_the_start_a_reload_the_successor_and_the_end() {
    let upstream = hello().await;
    let config = to(upstream.addr(), "");
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_nonblocking(true).unwrap();
    let told = tokio::net::UnixDatagram::from_std(told).unwrap();
    let next = async || {
        let mut text = [0; 512];
        let len = within("a notification", told.recv(&mut text)).await.unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    };
    let line = Line::start_with(&config, |command| {
        command.env("NOTIFY_SOCKET", &path);
    })
    .await;
    let pid = line.first.id();
    assert!(next().await.starts_with("READY=1\n"));
    signal(pid, "HUP");
    let reloading = next().await;
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(next().await.starts_with("READY=1\n"));
    let successor = line.upgrade(pid).await;
    let told = next().await;
    assert!(told.starts_with(&format!("MAINPID={successor}\nREADY=1\n")), "{told}");
    gone(pid).await;
    signal(successor, "TERM");
    assert!(next().await.starts_with("STOPPING=1\n"), "the one that left says nothing of an end");
}
