//! Real servers for tests: started on ports of their own, killed when they are dropped.

#![allow(dead_code, reason = "each test file uses the servers it needs")]

pub(crate) mod cluster;
#[path = "../../../tidegate/tests/support/ports.rs"]
pub(crate) mod ports;
pub(crate) mod sentinels;

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use redis::{FromRedisValue, aio::MultiplexedConnection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a server may take for anything a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A redis-server of a test.
pub(crate) struct Redis {
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_on(ports::free().port(), arguments)
    }

    pub(crate) fn start_on(port: u16, arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory for the server");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut redis = Self { port, directory, arguments, child: None };
        redis.run();
        redis
    }

    /// Starts it again, on the same port; it is as empty as its directory.
    pub(crate) fn run(&mut self) {
        let directory = self.directory.path().to_str().expect("a path in UTF-8");
        let mut command = server();
        command
            .args(["--port", &self.port.to_string(), "--dir", directory, "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(&self.arguments);
        let mut child = spawn(&mut command);
        wait_for_line(&mut child, "Ready to accept connections");
        self.child = Some(child);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.child.as_ref().expect("it runs"), signal);
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// A connection for the test itself.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        connect(self.port).await
    }

    /// Runs a command given as words.
    pub(crate) async fn say<T: FromRedisValue>(&self, words: &str) -> T {
        say(&mut self.connect().await, words).await
    }
}

impl Redis {
    /// Whether it takes writes. A sentinel cuts all connections when it changes that.
    pub(crate) async fn is_master(&self) -> Option<()> {
        let client = redis::Client::open(self.url()).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
        info.contains("role:master").then_some(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) async fn connect(port: u16) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a URL");
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await.expect("the server takes connections")
}

pub(crate) async fn say<T: FromRedisValue>(connection: &mut MultiplexedConnection, words: &str) -> T {
    let mut command = redis::Cmd::new();
    for word in words.split_ascii_whitespace() {
        command.arg(word);
    }
    command.query_async(connection).await.unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// The variable that names another server than `redis-server`.
const SERVER: &str = "TIDEGATE_REDIS_SERVER";

/// A server of Redis or Valkey.
pub(crate) fn server() -> Command {
    Command::new(env::var_os(SERVER).unwrap_or_else(|| "redis-server".into()))
}

/// Starts it, with its log in a pipe.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let started = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    started.unwrap_or_else(|error| {
        panic!(
            "{} cannot be started, and these tests need one: {error}; run scripts/install-test-tools, or name another, like \
             {SERVER}=/usr/bin/valkey-server",
            command.get_program().display()
        )
    })
}

pub(crate) fn signal_to(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the process is there");
}

/// Waits for a line of the server's log, and goes on draining it.
pub(crate) fn wait_for_line(child: &mut Child, wanted: &'static str) {
    let log = BufReader::new(child.stdout.take().expect("its log is a pipe"));
    let (seen, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut all = String::new();
        for text in log.lines().map_while(Result::ok) {
            all.push_str(&text);
            all.push('\n');
            if text.contains(wanted) {
                let _ = seen.send(Ok(()));
            }
        }
        let _ = seen.send(Err(all));
    });
    match line.recv_timeout(PATIENCE) {
        Ok(Ok(())) => {}
        Ok(Err(log)) => panic!("the server ended before it said `{wanted}`; its log:\n{log}"),
        Err(_) => panic!("the server did not say `{wanted}` in {PATIENCE:?}"),
    }
}

/// Asks again and again until it is so; `what` is for the panic.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
