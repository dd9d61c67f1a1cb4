//! tower's limit of concurrency before a plain proxy: what one gets by putting the layer in front of a client.

use std::net::SocketAddr;

use http::{Request, Response, Uri};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use tower::{
    ServiceBuilder, ServiceExt as _, limit::GlobalConcurrencyLimitLayer, service_fn as tower_service,
};

use crate::Failed;

/// Serves until it is ended.
pub(crate) async fn serve(address: SocketAddr, upstream: SocketAddr, limit: usize) -> Result<(), Failed> {
    let listener = TcpListener::bind(address).await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Incoming>();
    let proxy = ServiceBuilder::new().layer(GlobalConcurrencyLimitLayer::new(limit)).service(tower_service(
        move |mut request: Request<Incoming>| {
            let client = client.clone();
            async move {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("http://{upstream}{path}").parse::<Uri>()?;
                Ok::<Response<Incoming>, Failed>(client.request(request).await?)
            }
        },
    ));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let proxy = proxy.clone();
        let service = service_fn(move |request| proxy.clone().oneshot(request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
