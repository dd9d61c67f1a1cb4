//! One question to the admin pages of a gateway.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

/// Longest wait for the whole answer. Default: 10 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer. Default: 64 MiB.
const MOST_BYTES: usize = 64 << 20;

/// Why a gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nobody answers there.
    #[error("no gateway answers at {admin}: {why}; is it running, and is that its listen.admin? (--admin)")]
    Unreachable {
        /// Where it was looked for.
        admin: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// It said no, and why.
    #[error("{why}")]
    Refused {
        /// In its words.
        why: String,
    },
    /// Somebody else answers there.
    #[error("what answers at {admin} is no gateway that this command knows: {why}; look at --admin")]
    Stranger {
        /// Where it was looked for.
        admin: SocketAddr,
        /// What was wrong.
        why: String,
    },
}

/// An answer.
#[derive(Debug)]
pub(super) struct Said {
    admin: SocketAddr,
    pub(super) text: String,
}

impl Said {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failed> {
        serde_json::from_str(&self.text)
            .map_err(|error| Failed::Stranger { admin: self.admin, why: unread(&error) })
    }
}

/// Why an answer says nothing to this command.
fn unread(error: &serde_json::Error) -> String {
    if error.is_data() {
        format!("its answer has another shape ({error})")
    } else {
        "its answer is no JSON".into()
    }
}

pub(super) fn ask(
    admin: SocketAddr,
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Said, Failed> {
    let unreachable = |why: String| Failed::Unreachable { admin, why };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let exchange = exchange(admin, method, path, body);
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
    let (status, text) = answer
        .map_err(|_| unreachable(format!("no answer within {PATIENCE:?}")))?
        .map_err(|error| unreachable(error.to_string()))?;
    if status == StatusCode::OK {
        return Ok(Said { admin, text });
    }
    match serde_json::from_str::<Value>(&text).ok().as_ref().and_then(|said| said["error"].as_str()) {
        Some(why) => Err(Failed::Refused { why: why.to_owned() }),
        None => Err(Failed::Stranger { admin, why: format!("it answered {status}") }),
    }
}

async fn exchange(
    admin: SocketAddr,
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, admin.to_string());
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = request.body(Full::new(Bytes::from(body)))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MOST_BYTES).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    // The connection ends with the answer at the latest.
    let driven = async {
        let _ended = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = driven => unreachable!("it waits for ever once the connection has ended"),
    }
}
