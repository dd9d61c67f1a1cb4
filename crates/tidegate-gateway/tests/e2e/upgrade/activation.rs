//! Sockets that systemd keeps over a restart: here, this test keeps them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use crate::{
    setup::to,
    support::{client, eventually, gateway, ports, within},
};

/// A process, killed on drop.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the gateway as systemd does, with the socket as file descriptor 3.
fn activate(socket: &TcpListener, directory: &std::path::Path) -> Activated {
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(gateway::command().get_program());
    command.args(["serve", "--config"]).arg(directory.join("tidegate.yaml"));
    command.env("NO_COLOR", "1").env_remove("TIDEGATE_LOG").env_remove("TIDEGATE_CONFIG");
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    let errors = fs::File::create(directory.join("errors")).unwrap();
    Activated(command.stdout(Stdio::null()).stderr(errors).spawn().unwrap())
}

fn configure(directory: &std::path::Path, http: SocketAddr, admin: SocketAddr, upstream: SocketAddr) {
    let config = format!("pressure: off\nlisten:\n  http: {http}\n  admin: {admin}\n{}", to(upstream, ""));
    fs::write(directory.join("tidegate.yaml"), config).unwrap();
}

async fn is_ready(admin: SocketAddr) {
    eventually("the gateway getting ready", async || {
        client::try_get_at(admin, "/ready").await.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn connections_wait_in_an_activated_socket_while_the_gateway_restarts() {
    let upstream = super::hello().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, admin) = (socket.local_addr().unwrap(), ports::free());
    configure(directory.path(), http, admin, upstream.addr());
    let mut first = activate(&socket, directory.path());
    is_ready(admin).await;
    assert_eq!(client::get(http, "/").await.text(), "hello");
    super::signal(first.0.id(), "TERM");
    eventually("its end", async || first.0.try_wait().unwrap().is_some()).await;
    assert_eq!(first.0.try_wait().unwrap().unwrap().code(), Some(0));
    let waiting = tokio::spawn(client::get(http, "/"));
    let _second = activate(&socket, directory.path());
    assert_eq!(within("an answer of the second", waiting).await.unwrap().text(), "hello");
}

#[tokio::test]
async fn a_socket_that_the_configuration_does_not_name_is_refused_with_both_addresses() {
    let upstream = super::hello().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, admin) = (ports::free(), ports::free());
    configure(directory.path(), http, admin, upstream.addr());
    let mut process = activate(&socket, directory.path());
    eventually("its end", async || process.0.try_wait().unwrap().is_some()).await;
    let errors = fs::read_to_string(directory.path().join("errors")).unwrap();
    assert_eq!(process.0.try_wait().unwrap().unwrap().code(), Some(2), "{errors}");
    let addr = socket.local_addr().unwrap();
    assert!(errors.contains(&addr.to_string()) && errors.contains(&http.to_string()), "{errors}");
    assert!(errors.contains("ListenStream="), "{errors}");
}
