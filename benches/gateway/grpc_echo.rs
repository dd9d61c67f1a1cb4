//! The upstream of the gRPC rows: a tonic server that sends back what it gets. Usage: grpc-echo ADDRESS

#[expect(dead_code, reason = "a file of the gateway's tests, which use the rest of it")]
#[expect(unreachable_pub, reason = "a file of the gateway's tests")]
#[path = "../../crates/tidegate-gateway/tests/support/grpc.rs"]
mod grpc;

use std::{error::Error, future, net::SocketAddr};

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: grpc-echo ADDRESS, like 127.0.0.1:9001";
    let addr: SocketAddr = std::env::args().nth(1).ok_or(usage)?.parse().map_err(|_| usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let _server = grpc::GrpcServer::start_at(addr).await;
        future::pending::<()>().await;
    });
    Ok(())
}
