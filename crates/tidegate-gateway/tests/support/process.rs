//! A process that a test starts: what it prints is kept, and it ends with its owner.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use super::{LOOK_AGAIN, within};

/// A running process. Dropping it kills it.
pub struct Process {
    name: &'static str,
    child: Child,
    output: watch::Receiver<String>,
}

impl Process {
    /// Starts `command`; what it prints on either stream is kept.
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}; `make test` installs it"));
        let (sender, output) = watch::channel(String::new());
        let sender = Arc::new(sender);
        keep(child.stdout.take().unwrap(), sender.clone());
        keep(child.stderr.take().unwrap(), sender);
        Self { name, child, output }
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.output.borrow().clone()
    }

    /// Waits until it has printed `text`.
    pub async fn printed(&self, text: &str) {
        let mut output = self.output.clone();
        within(&format!("{} printing {text:?}", self.name), async {
            let found = output.wait_for(|output| output.contains(text)).await.is_ok();
            assert!(found, "{} ended without printing {text:?}:\n{}", self.name, self.output());
        })
        .await;
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, like `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal {name} to {}", self.name);
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for it to end, and for the last of what it printed.
    pub async fn end(&mut self) -> ExitStatus {
        let name = self.name;
        within(&format!("{name} ending"), async {
            let status = loop {
                if let Some(status) = self.ended() {
                    break status;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            };
            while self.output.changed().await.is_ok() {}
            status
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} printed:\n{}---", self.name, self.output());
        }
    }
}

fn keep(stream: impl Read + Send + 'static, output: Arc<watch::Sender<String>>) {
    thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            output.send_modify(|all| all.push_str(&String::from_utf8_lossy(&line)));
            line.clear();
        }
    });
}
