//! An upstream that speaks bytes: for answers that no decent server gives.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::{raw::Raw, within};

/// A port whose connections the test plays itself.
pub struct Scripted {
    listener: TcpListener,
}

impl Scripted {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    pub async fn accept(&self) -> Raw {
        Raw::over(within("the gateway connecting", self.listener.accept()).await.unwrap().0)
    }
}
