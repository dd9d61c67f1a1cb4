//! A listener to talk to, and clients that say whatever bytes they like.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    body::ResponseBody,
    listener::{Drained, Handler, Limits, Listener, ListenerStats, LiveLimits, LiveTls, Peer, Settings},
    workers::Workers,
};

/// Longer than anything here takes, however slow the machine.
pub(super) const EVENTUALLY: Duration = Duration::from_secs(30);

/// Answers by path, and remembers what it was asked.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) seen: Mutex<Vec<String>>,
    pub(super) peers: Mutex<Vec<Arc<Peer>>>,
    /// Lets calls to `/wait` go on.
    pub(super) go_on: Arc<Notify>,
    /// Told of each call to `/wait`, and again when it is dropped.
    pub(super) waiting: Option<mpsc::UnboundedSender<&'static str>>,
}

struct Dropped<'a>(&'a Answers);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = &self.0.waiting {
            let _ = waiting.send("dropped");
        }
    }
}

impl Handler for Answers {
    async fn call(&self, mut request: Request<Incoming>, peer: &Arc<Peer>) -> Response<ResponseBody> {
        self.seen.lock().push(format!("{} {}", request.method(), request.uri().path()));
        self.peers.lock().push(Arc::clone(peer));
        match request.uri().path() {
            "/collect" => match request.into_body().collect().await {
                Ok(body) => Response::new(Bytes::from(body.to_bytes().len().to_string()).into()),
                Err(_) => status(StatusCode::BAD_REQUEST),
            },
            "/large" => Response::new(Bytes::from(vec![b'x'; 64 << 20]).into()),
            "/wait" => {
                let _dropped = Dropped(self);
                if let Some(waiting) = &self.waiting {
                    let _ = waiting.send("waiting");
                }
                self.go_on.notified().await;
                Response::new(Bytes::from_static(b"waited").into())
            }
            "/panic" => panic!("asked to"),
            "/upgrade" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut tunnel = TokioIo::new(upgrade.await.expect("upgraded"));
                    let (mut near, mut far) = tokio::io::duplex(1024);
                    tokio::spawn(async move {
                        let (mut read, mut write) = tokio::io::split(&mut far);
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    });
                    let _ = copy_bidirectional(&mut tunnel, &mut near).await;
                });
                let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
                response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
                response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
                response
            }
            _ => Response::new(Bytes::from_static(b"hello").into()),
        }
    }
}

fn status(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// A running listener.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    pub(super) stats: Arc<ListenerStats>,
    pub(super) answers: Arc<Answers>,
    pub(super) workers: Arc<Workers>,
    pub(super) limits: LiveLimits,
    pub(super) drain: CancellationToken,
    pub(super) handed_over: CancellationToken,
    /// What a successor would be given; taken out, the listener's own is the last handle.
    pub(super) socket: Option<std::net::TcpListener>,
    pub(super) run: JoinHandle<Drained>,
}

impl Server {
    pub(super) fn start(limits: Limits) -> Self {
        Self::start_with(limits, Answers::default(), None, EVENTUALLY)
    }

    pub(super) fn start_with(
        limits: Limits,
        answers: Answers,
        tls: Option<Arc<LiveTls>>,
        drain_time: Duration,
    ) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (addr, stats) = (listener.addr(), listener.stats());
        let workers = Arc::new(Workers::start(NonZeroUsize::new(2).unwrap()).unwrap());
        let answers = Arc::new(answers);
        let (limits, drain, handed_over) =
            (limits.live(), CancellationToken::new(), CancellationToken::new());
        let socket = listener.share().unwrap();
        let settings = Settings {
            limits: Arc::clone(&limits),
            tls,
            drain: drain.clone(),
            handed_over: handed_over.clone(),
            drain_time,
        };
        let run = tokio::spawn({
            let (answers, workers) = (Arc::clone(&answers), Arc::clone(&workers));
            async move { listener.run(answers, &workers, settings).await.unwrap() }
        });
        Self { addr, stats, answers, workers, limits, drain, handed_over, socket: Some(socket), run }
    }

    pub(super) async fn connect(&self) -> Client {
        Client(timeout(EVENTUALLY, TcpStream::connect(self.addr)).await.unwrap().unwrap())
    }

    /// Says bytes on a connection of its own and reads all that comes back.
    pub(super) async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.say(bytes).await;
        client.rest().await
    }

    /// Waits until a count has a value; the counts are not told about, so this asks again and again.
    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut(&ListenerStats) -> bool) {
        let reached = async {
            while !holds(&self.stats) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(EVENTUALLY, reached).await.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.stats));
    }

    pub(super) async fn until_none_open(&self) {
        self.until("no connection open", |stats| stats.open.load(Relaxed) == 0).await;
        let peers = self.answers.peers.lock().clone();
        self.until("no exchange", |_| peers.iter().all(|peer| peer.in_flight() == 0)).await;
        assert_eq!(self.workers.connections(), [0, 0]);
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.answers.seen.lock().clone()
    }
}

/// A client that says whatever bytes it likes.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The listener may have heard enough before the end.
        let _ = timeout(EVENTUALLY, self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads up to and with an end.
    pub(super) async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            let byte = timeout(EVENTUALLY, self.0.read_u8()).await.expect("in time");
            heard.push(byte.unwrap_or_else(|_| panic!("closed after {:?}", String::from_utf8_lossy(&heard))));
        }
        String::from_utf8(heard).unwrap()
    }

    /// Reads up to and with an end that is no text.
    pub(super) async fn hear_bytes(&mut self, end: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        while !heard.ends_with(end) {
            let read = timeout(EVENTUALLY, self.0.read_buf(&mut heard)).await.expect("in time").unwrap();
            assert_ne!(read, 0, "closed after {heard:?}");
        }
        heard
    }

    /// Reads until the listener closes.
    pub(super) async fn rest(&mut self) -> String {
        let mut heard = Vec::new();
        let _ = timeout(EVENTUALLY, self.0.read_to_end(&mut heard)).await.expect("closed in time");
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// What a handler tells of itself next.
pub(super) async fn told_of(waiting: &mut mpsc::UnboundedReceiver<&'static str>) -> &'static str {
    timeout(EVENTUALLY, waiting.recv()).await.expect("told in time").expect("not gone")
}

/// A request without a body.
pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Bounds that are over soon.
pub(super) fn hasty() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(200),
        keep_alive: Duration::from_millis(400),
        quiet: Duration::from_millis(50),
        idle: Duration::from_millis(300),
        min_body_rate: 0,
        ..Limits::default()
    }
}

/// An HTTP/2 client over any connection.
pub(super) async fn http2<T>(
    io: T,
) -> (hyper::client::conn::http2::SendRequest<ResponseBody>, JoinHandle<hyper::Result<()>>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let executor = hyper_util::rt::TokioExecutor::new();
    let (send, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(io)).await.unwrap();
    (send, tokio::spawn(connection))
}

pub(super) fn request(path: &str) -> Request<ResponseBody> {
    Request::builder().uri(format!("http://a{path}")).body(ResponseBody::empty()).unwrap()
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    let body = Pin::new(&mut response.into_body()).collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}
