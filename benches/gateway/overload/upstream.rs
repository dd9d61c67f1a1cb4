//! An upstream of a known capacity: so many workers, so long a service, and a line before them that nobody bounds. Each
//! call in line makes the service a hundredth slower, as memory, locks and caches do; and a call whose client left is
//! worked on all the same, as a thread in a pool does not hear of it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::Failed;

/// How much slower each call in line makes the others.
const DRAG: f64 = 0.01;

struct Upstream {
    workers: Semaphore,
    service: Duration,
    present: AtomicUsize,
    peak: AtomicUsize,
    calls: AtomicUsize,
    most_at_once: usize,
}

/// Serves until it is ended. `GET /counts` tells the most calls it had at once and how many came.
pub(crate) async fn serve(address: SocketAddr, workers: usize, service: Duration) -> Result<(), Failed> {
    let listener = TcpListener::bind(address).await?;
    let upstream = Arc::new(Upstream {
        workers: Semaphore::new(workers),
        service,
        present: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
        most_at_once: workers,
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let upstream = Arc::clone(&upstream);
        let service = service_fn(move |request: Request<Incoming>| {
            let upstream = Arc::clone(&upstream);
            async move { Ok::<_, Infallible>(upstream.answer(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Upstream {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/counts" {
            let counts =
                format!("{{\"peak\":{},\"calls\":{}}}", self.peak.load(Relaxed), self.calls.load(Relaxed));
            return Response::new(Full::new(counts.into()));
        }
        // A task of its own: it goes on though its client leaves.
        let worked = tokio::spawn(async move { self.work().await });
        worked.await.expect("work does not panic");
        Response::new(Full::new(Bytes::from_static(b"done")))
    }

    async fn work(&self) {
        self.calls.fetch_add(1, Relaxed);
        let present = self.present.fetch_add(1, Relaxed) + 1;
        self.peak.fetch_max(present, Relaxed);
        let worker = self.workers.acquire().await.expect("the semaphore is never closed");
        let in_line = self.present.load(Relaxed).saturating_sub(self.most_at_once);
        tokio::time::sleep(self.service.mul_f64(1.0 + DRAG * in_line as f64)).await;
        drop(worker);
        self.present.fetch_sub(1, Relaxed);
    }
}
