use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
};

use super::{Inherited, Role, Upgrade, UpgradeError, successor::Successor, wire};

fn two() -> Vec<(Role, TcpListener)> {
    Role::ALL.map(|role| (role, TcpListener::bind("127.0.0.1:0").unwrap())).into()
}

fn passed(sockets: &[(Role, TcpListener)]) -> Inherited {
    let (ours, theirs) = UnixStream::pair().unwrap();
    wire::send(&ours, sockets).unwrap();
    Inherited::received(theirs).unwrap()
}

#[test]
fn a_successor_claims_what_it_listens_on_by_its_role_and_its_address() {
    let sockets = two();
    let [http, admin] = [0, 1].map(|index: usize| sockets[index].1.local_addr().unwrap());
    let mut inherited = passed(&sockets);
    assert!(inherited.is_successor());
    assert!(inherited.claim(Role::Http, admin).is_none(), "that is the admin's");
    let elsewhere: SocketAddr = "127.0.0.2:1".parse().unwrap();
    assert!(inherited.claim(Role::Http, elsewhere).is_none());
    assert_eq!(inherited.claim(Role::Http, http).unwrap().local_addr().unwrap(), http);
    assert!(inherited.claim(Role::Http, http).is_none(), "once");
    let any_port = SocketAddr::new(admin.ip(), 0);
    assert_eq!(inherited.claim(Role::Admin, any_port).unwrap().local_addr().unwrap(), admin);
    inherited.settle(http, admin).unwrap();
}

#[test]
fn a_socket_that_a_successor_does_not_want_is_left_to_the_process_before_it() {
    let sockets = two();
    let addr = sockets[0].1.local_addr().unwrap();
    passed(&sockets).settle(addr, addr).unwrap();
    assert!(std::net::TcpStream::connect(addr).is_ok());
}

#[test]
fn a_message_that_is_none_is_refused_and_says_why() {
    for (said, why) in [
        ("tidegate sockets 2\n\n", "another version"),
        ("tidegate sockets 1\nhttp\n\n", "more or fewer"),
        ("tidegate sockets 1\nhttp\n", "ends in the middle"),
        ("", "ends in the middle"),
    ] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(said.as_bytes()).unwrap();
        drop(ours);
        let error = Inherited::received(theirs).unwrap_err().to_string();
        assert!(error.contains(why), "{said:?}: {error}");
    }
}

fn shell(script: &str) -> Result<Successor, UpgradeError> {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Successor::spawn(command, &two(), PathBuf::from("sh"))
}

#[tokio::test]
async fn a_successor_that_ends_before_it_serves_is_told_with_its_code() {
    let error = shell("exit 2").unwrap().serves().await.unwrap_err().to_string();
    assert!(error.contains("exit status: 2"), "{error}");
    // One that lives on without the way to it would never be heard of.
    let error = shell("exec <&-; exec sleep 60").unwrap().serves().await.unwrap_err();
    assert!(matches!(error, UpgradeError::Ended(_)), "{error}");
    let missing = Successor::spawn(Command::new("/no/such"), &two(), PathBuf::from("/no/such"));
    let error = missing.unwrap_err().to_string();
    assert!(error.contains("cannot start /no/such"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_never_serves_is_ended_when_its_time_is_over() {
    let successor = shell("exec sleep 60").unwrap();
    let error = successor.serves().await.unwrap_err();
    assert!(matches!(error, UpgradeError::Late), "{error}");
}

#[tokio::test]
async fn an_upgrade_gives_the_sockets_up_only_to_a_successor_that_serves() {
    let sockets = two();
    let addr = sockets[0].1.local_addr().unwrap();
    let mut upgrade = Upgrade::new(sockets);
    upgrade.await_it(shell("exit 1").unwrap());
    assert!(upgrade.ended().await.is_err());
    assert!(TcpListener::bind(addr).is_err(), "still listening");
    // What was sent is read first, as a successor does it.
    upgrade
        .await_it(shell("dd bs=1024 count=1 of=/dev/null 2>/dev/null; printf r >&0; exec sleep 60").unwrap());
    let second = upgrade.begin().unwrap_err();
    assert!(matches!(second, UpgradeError::Starting(_)), "{second}");
    let pid = upgrade.ended().await.unwrap();
    assert!(TcpListener::bind(addr).is_ok());
    let gone = Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(gone.success(), "it outlives the upgrade");
    let third = upgrade.begin().unwrap_err();
    assert!(matches!(third, UpgradeError::Draining), "{third}");
}
