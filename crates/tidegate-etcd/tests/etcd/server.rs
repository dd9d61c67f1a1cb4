//! Real etcd servers, started for a test and killed with it.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::FutureExt as _;
use tempfile::TempDir;
use tidegate::{Credentials, Secret, Server};
use tidegate_etcd::{
    LoginBudget, Settings,
    proto::{
        AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
        AuthUserGrantRoleRequest, Permission, StatusRequest, auth_client::AuthClient,
        maintenance_client::MaintenanceClient, permission,
    },
};
use tonic::transport::{Channel, Endpoint};

use crate::ports;

/// Longer than anything here takes on a busy machine. A wait that ends so is a failure, never a way to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(80);

/// Which etcd: the oldest that is supported, and the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V34,
    V37,
}

impl Version {
    fn binary(self) -> PathBuf {
        match self {
            Self::V34 => PathBuf::from("etcd"),
            Self::V37 => {
                etcd_bin_vendored::etcd_bin_path().expect("etcd is vendored for this machine").into()
            }
        }
    }
}

/// One member of a cluster, or a server of its own.
pub(crate) struct Etcd {
    version: Version,
    arguments: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) peer: u16,
}

impl Etcd {
    /// Starts a server without authentication.
    pub(crate) async fn start(version: Version) -> Self {
        Self::start_with(version, &[]).await
    }

    pub(crate) async fn start_with(version: Version, arguments: &[&str]) -> Self {
        let etcd = Self::launch_with(version, arguments);
        etcd.ready().await;
        etcd
    }

    /// Starts a server, and does not wait for it.
    pub(crate) fn launch_with(version: Version, arguments: &[&str]) -> Self {
        let mut etcd = Self::new(version, arguments);
        let cluster = format!("m{}=http://127.0.0.1:{}", etcd.peer, etcd.peer);
        etcd.arguments.extend(["--initial-cluster".into(), cluster]);
        etcd.launch();
        etcd
    }

    /// Starts a server with authentication on: `root`, and `gate`, which may read and write below `/`.
    pub(crate) async fn start_with_users(version: Version, arguments: &[&str]) -> Self {
        let etcd = Self::start_with(version, arguments).await;
        etcd.enable_users().await;
        etcd
    }

    /// Starts three servers that are one cluster.
    pub(crate) async fn start_cluster(version: Version) -> [Self; 3] {
        let mut members: [Self; 3] = std::array::from_fn(|_| Self::new(version, &[]));
        let cluster: Vec<_> =
            members.iter().map(|one| format!("m{}=http://127.0.0.1:{}", one.peer, one.peer)).collect();
        for member in &mut members {
            member.arguments.extend(["--initial-cluster".into(), cluster.join(",")]);
            member.launch();
        }
        for member in &members {
            member.ready().await;
        }
        members
    }

    /// Starts three servers that are one cluster, with authentication on.
    pub(crate) async fn start_cluster_with_users(version: Version) -> [Self; 3] {
        let members = Self::start_cluster(version).await;
        members[0].enable_users().await;
        members
    }

    fn new(version: Version, arguments: &[&str]) -> Self {
        Self {
            version,
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
            directory: tempfile::tempdir().unwrap(),
            child: None,
            port: ports::free().port(),
            peer: ports::free().port(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the process, on the data that a former one left.
    pub(crate) fn launch(&mut self) {
        let scheme = if self.arguments.iter().any(|one| one == "--cert-file") { "https" } else { "http" };
        let (client, peer) =
            (format!("{scheme}://127.0.0.1:{}", self.port), format!("http://127.0.0.1:{}", self.peer));
        let log = File::options().create(true).append(true).open(self.directory().join("log")).unwrap();
        let child = Command::new(self.version.binary())
            .args(["--name", &format!("m{}", self.peer), "--bcrypt-cost", "4", "--unsafe-no-fsync"])
            .arg("--data-dir")
            .arg(self.directory().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(&self.arguments)
            .env_remove("ETCD_UNSUPPORTED_ARCH")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd is installed: Debian's package etcd-server, or `make test-tools`");
        self.child = Some(child);
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&self) {
        until("etcd serves", async || {
            let mut client = MaintenanceClient::new(self.channel());
            // With authentication on, this answers that there is no user: it serves.
            match client.status(StatusRequest {}).await {
                Ok(answer) => answer.into_inner().leader != 0,
                Err(status) => status.message().starts_with("etcdserver: user name is empty"),
            }
        })
        .await;
    }

    /// A connection for the test itself.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap().connect_lazy()
    }

    pub(crate) async fn enable_users(&self) {
        self.enable_users_over(self.channel()).await;
    }

    pub(crate) async fn enable_users_over(&self, channel: Channel) {
        let mut auth = AuthClient::new(channel);
        for (user, role) in [("root", "root"), ("gate", "gate")] {
            auth.role_add(AuthRoleAddRequest { name: role.into() }).await.unwrap();
            auth.user_add(AuthUserAddRequest { name: user.into(), password: "hunter2".into() })
                .await
                .unwrap();
            let grant = AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
            auth.user_grant_role(grant).await.unwrap();
        }
        let perm = Permission {
            perm_type: permission::Type::Readwrite.into(),
            key: b"/".into(),
            range_end: b"0".into(),
        };
        let grant = AuthRoleGrantPermissionRequest { name: "gate".into(), perm: Some(perm) };
        auth.role_grant_permission(grant).await.unwrap();
        auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    }

    pub(crate) fn server(&self) -> Server {
        Server { host: "127.0.0.1".into(), port: self.port }
    }

    /// Settings of a client that logs in, with a budget of its own.
    pub(crate) fn settings(&self) -> Settings {
        settings([self.server()])
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills it and starts it again on its data.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.launch();
        self.ready().await;
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Stops it until `-CONT`, and waits until none of its threads answers any more: a busy machine takes its time.
    pub(crate) async fn stop(&self) {
        self.signal("-STOP");
        let id = self.child.as_ref().expect("it runs").id();
        until("it stands still", async || {
            let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
            // The state stands behind the name, which ends with the last parenthesis.
            let is_stopped =
                |stat: String| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"));
            threads
                .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok())
                .all(is_stopped)
        })
        .await;
    }

    /// The sum of a metric over all its labels that contain `label`, as the server counts it itself.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("etcd_server_has_leader"), "{}", &text[..text.len().min(300)]);
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// How many logins it was asked for since it started.
    pub(crate) fn logins(&self) -> u64 {
        self.metric("grpc_server_started_total", "grpc_method=\"Authenticate\"")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the last lines of {:?}:\n{}",
                self.version,
                lines[lines.len().saturating_sub(8)..].join("\n")
            );
        }
    }
}

/// Settings of a client of these servers that logs in as `gate`, with a budget of its own and short timeouts.
pub(crate) fn settings(servers: impl IntoIterator<Item = Server>) -> Settings {
    Settings::new(servers)
        .credentials(Credentials { user: "gate".into(), password: Secret::new("hunter2") })
        .login_budget(LoginBudget::new(Duration::from_millis(100), 10))
        .call_timeout(Duration::from_secs(4))
        .attempt_timeout(Duration::from_secs(1))
}

/// Waits until a real server has come to a state that it does not announce.
pub(crate) async fn until(what: &str, reached: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, what, reached).await;
}

pub(crate) async fn until_within(limit: Duration, what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, reached).await.unwrap_or_else(|_| panic!("{limit:?} and not: {what}"));
}

/// Runs a test against the oldest and the newest etcd, side by side: most of their time is waiting.
pub(crate) async fn both<T: Future<Output = ()>>(test: impl Fn(Version) -> T) {
    let run = async |version| {
        let end = AssertUnwindSafe(test(version)).catch_unwind().await;
        end.inspect_err(|_| eprintln!("so it is with {version:?}"))
    };
    let (oldest, newest) = tokio::join!(run(Version::V34), run(Version::V37));
    if let Err(panic) = oldest.and(newest) {
        resume_unwind(panic);
    }
}

/// Makes tests of scenarios that each version must pass.
macro_rules! on_both {
    ($($name:ident,)+) => {
        mod on_both_versions {
            $(#[tokio::test] async fn $name() { crate::server::both(super::$name).await })+
        }
    };
}
pub(crate) use on_both;
