//! nginx as an upstream, or as whatever its configuration makes it.

use std::{net::SocketAddr, os::unix::fs::MetadataExt as _, process::Command};

use tempfile::TempDir;

use super::{LOOK_AGAIN, client, ports, process::Process, within};

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    process: Process,
    addr: SocketAddr,
    _directory: TempDir,
}

impl Nginx {
    /// Starts one server with these directives, such as `location / { return 200 hello; }`.
    pub async fn start(server: &str) -> Self {
        loop {
            let directory = tempfile::tempdir().unwrap();
            let addr = ports::free();
            let file = directory.path().join("nginx.conf");
            std::fs::write(&file, config(server, addr, &directory)).unwrap();
            let mut command = Command::new("nginx");
            command.env("PATH", path()).arg("-c").arg(&file).arg("-p").arg(directory.path());
            command.args(["-e", "stderr"]);
            let mut nginx =
                Self { process: Process::start("nginx", &mut command), addr, _directory: directory };
            if nginx.ready().await {
                return nginx;
            }
        }
    }

    /// Whether it answers; not so when somebody else had its port.
    async fn ready(&mut self) -> bool {
        within("nginx getting ready", async {
            loop {
                if let Some(status) = self.process.ended() {
                    let output = self.process.output();
                    assert!(output.contains("already in use"), "nginx ended with {status}:\n{output}");
                    return false;
                }
                if client::try_get(self.addr, "/").await.is_some() {
                    return true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// One process that serves all: killing it ends everything. It writes nothing outside of its directory.
fn config(server: &str, addr: SocketAddr, directory: &TempDir) -> String {
    let directory = directory.path().display();
    let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    // Workers of root's nginx would else be somebody who cannot read the directory.
    let user = if root { "user root;" } else { "" };
    format!(
        "{user}
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 100000;
  server {{
    listen {addr};
    root {directory};
    {server}
  }}
}}
"
    )
}

/// Servers live in sbin, which is not on every user's path.
fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
