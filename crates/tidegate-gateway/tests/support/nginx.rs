//! nginx as an upstream, or as whatever its configuration makes it.

use std::{net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{LOOK_AGAIN, ports, process::Process, within};

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    process: Process,
    addr: SocketAddr,
    directory: TempDir,
}

impl Nginx {
    /// Starts one server with these directives, such as `location / { return 200 hello; }`.
    pub async fn start(server: &str) -> Self {
        Self::start_with(server, "", |_| {}).await
    }

    /// As [`Nginx::start`], over TLS: `certificate` puts `tls.crt` and `tls.key` into the directory.
    pub async fn start_tls<T>(server: &str, certificate: impl Fn(&Path) -> T) -> Self {
        let server = format!("ssl_certificate tls.crt; ssl_certificate_key tls.key; {server}");
        Self::start_with(&server, "ssl", |directory| drop(certificate(directory))).await
    }

    async fn start_with(server: &str, options: &str, prepare: impl Fn(&Path)) -> Self {
        loop {
            let directory = tempfile::tempdir().unwrap();
            prepare(directory.path());
            let addr = ports::free();
            let file = directory.path().join("nginx.conf");
            std::fs::write(&file, config(server, options, addr, directory.path())).unwrap();
            let mut command = Command::new("nginx");
            command.env("PATH", path()).arg("-c").arg(&file).arg("-p").arg(directory.path());
            command.args(["-e", "stderr"]);
            let process = Process::start("nginx", &mut command);
            let mut nginx = Self { process, addr, directory };
            if nginx.ready().await {
                return nginx;
            }
        }
    }

    /// Whether it answers; not so when somebody else had its port.
    async fn ready(&mut self) -> bool {
        within("nginx getting ready", async {
            loop {
                if self.process.ended().is_some() {
                    let status = self.process.end().await;
                    let output = self.process.output();
                    assert!(output.contains("already in use"), "nginx ended with {status}:\n{output}");
                    return false;
                }
                if TcpStream::connect(self.addr).await.is_ok() {
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

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// One process that serves all: killing it ends everything. It writes nothing outside of its directory.
fn config(server: &str, options: &str, addr: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
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
    listen {addr} {options};
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
