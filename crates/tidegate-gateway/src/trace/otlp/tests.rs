//! Against a collector of our own that speaks the real protocol.

use http::HeaderMap;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status as GrpcStatus};

use super::*;
use crate::{
    config::Tracing,
    record::{Finished, example},
    trace::Tracer,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, GrpcStatus> {
        self.0.send(request.into_inner()).await.map_err(|_| GrpcStatus::internal("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (Tracer, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel(16);
    let service = TraceServiceServer::new(Collector(sender));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (tracer(&endpoint), received)
}

fn tracer(endpoint: &str) -> Tracer {
    let tracing = Tracing { otlp: Some(endpoint.into()), sample_percent: Some(100.0) };
    Tracer::start(&tracing, &Handle::current()).unwrap()
}

fn counts(tracer: &Tracer) -> TelemetryState {
    let mut state = TelemetryState::default();
    tracer.fill(&mut state);
    state
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()).and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sampled_call_reaches_the_collector_with_its_place_and_its_facts() {
    let (tracer, mut received) = collector().await;
    let mut headers = HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", parent.parse().unwrap());
    let trace = tracer.begin(&mut headers);
    let call = CallRecord { trace, target: "/orders/1?token=secret", ..example() };
    tracer.finish(&call);
    assert!(tracer.flush(PATIENCE).await);

    let request = received.recv().await.unwrap();
    let resource = request.resource_spans[0].resource.as_ref().unwrap();
    assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.name"));
    let spans = &request.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    assert_eq!(span.name, "GET orders");
    let sent = headers["traceparent"].to_str().unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)), sent);
    assert_eq!(hex(&span.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(span.start_time_unix_nano, 1_795_228_256_123_456_789);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 3_124_000);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "orders"),
        ("http.response.status_code", "200"),
        ("url.path", "/orders/1"),
        ("url.scheme", "http"),
        ("client.address", "192.0.2.10"),
        ("server.address", "orders.example"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "curl/8.0"),
        ("tidegate.endpoint", "127.0.0.1:9001"),
    ] {
        assert_eq!(attribute(span, key), value, "{key}");
    }
    assert!(!format!("{span:?}").contains("secret"));
    assert_eq!(counts(&tracer).spans_exported, 1);
}

#[tokio::test]
async fn a_refused_call_says_who_refused_and_a_failed_one_is_an_error() {
    let (tracer, mut received) = collector().await;
    let refused = CallRecord {
        trace: tracer.begin(&mut HeaderMap::new()),
        reason: Some("breaker"),
        method: "BREW",
        finished: Finished { status: 503, grpc_status: Some(14), ..example().finished },
        ..example()
    };
    tracer.finish(&refused);
    assert!(tracer.flush(PATIENCE).await);
    let request = received.recv().await.unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "HTTP orders");
    assert_eq!(attribute(span, "tidegate.reason"), "breaker");
    assert_eq!(attribute(span, "http.request.method_original"), "BREW");
    assert_eq!(attribute(span, "rpc.grpc.status_code"), "14");
    assert_eq!(attribute(span, "error.type"), "503");
    assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
}

#[tokio::test]
async fn calls_that_are_not_sampled_are_not_sent() {
    let (tracer, mut received) = collector().await;
    tracer.finish(&example());
    assert!(tracer.flush(PATIENCE).await);
    assert!(received.try_recv().is_err());
    assert_eq!(counts(&tracer).spans_exported, 0);
}

/// On a clock that jumps over the pauses between attempts.
#[tokio::test(start_paused = true)]
async fn a_collector_that_is_gone_costs_spans_and_nothing_else() {
    let tracer = tracer(&format!("http://{}", crate::ports::free()));
    // The task that sends has not run yet: the queue fills up, and the rest is dropped without waiting.
    for _ in 0..QUEUE + 10 {
        let trace = tracer.begin(&mut HeaderMap::new());
        tracer.finish(&CallRecord { trace, ..example() });
    }
    assert_eq!(counts(&tracer).spans_dropped, 10);
    assert!(tracer.flush(Duration::from_secs(1000)).await);
    let counts = counts(&tracer);
    assert_eq!((counts.spans_exported, counts.spans_failed), (0, QUEUE as u64));
}
