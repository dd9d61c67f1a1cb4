//! Spans to a collector, over OTLP/gRPC: the only room that knows OpenTelemetry.
//!
//! A bounded queue stands between calls and one task that sends batches. A collector that is slow or gone costs
//! spans, which are counted, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::TraceContext;
use crate::{record::CallRecord, state::TelemetryState};

/// Most spans that wait to be sent.
const QUEUE: usize = 4096;
/// Most spans sent at once.
const BATCH: usize = 512;
/// A span waits at most so long for others.
const LINGER: Duration = Duration::from_secs(1);
/// One batch may take so long, retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

const KNOWN_METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// Why no spans can be sent.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The endpoint is of no use.
    #[error("tracing.otlp `{endpoint}` cannot be used: {why}; write a URL like http://127.0.0.1:4317")]
    Endpoint {
        /// The endpoint, as written.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The share of sampled calls is no percentage.
    #[error("tracing.sample_percent {0} is no percentage; write a number from 0 to 100")]
    Percent(f64),
}

#[derive(Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Message>,
    counts: Arc<Counts>,
    scope: InstrumentationScope,
}

#[derive(Debug)]
enum Message {
    Span(Box<SpanData>),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Exporter {
    pub(super) fn start(endpoint: &str, runtime: &Handle) -> Result<Self, OtlpError> {
        let unusable = |why: String| OtlpError::Endpoint { endpoint: endpoint.to_owned(), why };
        let url = url::Url::parse(endpoint).map_err(|error| unusable(error.to_string()))?;
        if url.scheme() != "http" {
            return Err(unusable(format!(
                "the scheme is `{}`, and only plain gRPC to a collector is there",
                url.scheme()
            )));
        }
        // The channel spawns its tasks where it is made.
        let _on = runtime.enter();
        let mut sender = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        // The name yields to OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, as their users expect.
        let mut resource = Resource::builder().with_attribute(version);
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("tidegate");
        }
        sender.set_resource(&resource.build());
        let (queue, messages) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        runtime.spawn(run(sender, messages, Arc::clone(&counts)));
        let scope = InstrumentationScope::builder("tidegate").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { queue, counts, scope })
    }

    pub(super) fn record(&self, context: TraceContext, parent: Option<u64>, record: &CallRecord<'_>) {
        match self.queue.try_reserve() {
            Ok(place) => {
                place.send(Message::Span(Box::new(span(context, parent, record, self.scope.clone()))))
            }
            Err(_) => {
                self.counts.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    pub(super) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // An error says that the task ended, and with it everything that could be sent.
            let _ended = wait.await;
        }
    }

    pub(super) fn fill(&self, state: &mut TelemetryState) {
        state.spans_exported = self.counts.exported.load(Relaxed);
        state.spans_dropped = self.counts.dropped.load(Relaxed);
        state.spans_failed = self.counts.failed.load(Relaxed);
    }
}

/// Sends batches until the exporter is dropped and the queue is empty.
async fn run(sender: SpanExporter, mut messages: mpsc::Receiver<Message>, counts: Arc<Counts>) {
    let mut failing = false;
    while let Some(first) = messages.recv().await {
        let mut batch = Vec::new();
        let mut flush = None;
        take(first, &mut batch, &mut flush);
        let _full_or_late = timeout(LINGER, async {
            while flush.is_none() && batch.len() < BATCH {
                let Some(message) = messages.recv().await else { return };
                take(message, &mut batch, &mut flush);
            }
        })
        .await;
        if !batch.is_empty() {
            let spans = batch.len() as u64;
            let result = match timeout(EXPORT_TIMEOUT, sender.export(batch)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("it did not answer in time".to_owned()),
            };
            match result {
                Ok(()) => {
                    counts.exported.fetch_add(spans, Relaxed);
                    if std::mem::take(&mut failing) {
                        tracing::info!("spans reach the collector again");
                    }
                }
                Err(error) => {
                    counts.failed.fetch_add(spans, Relaxed);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "spans do not reach the collector; they are dropped and counted");
                    }
                }
            }
        }
        if let Some(done) = flush {
            // Whoever asked may have lost patience.
            let _gone = done.send(());
        }
    }
}

fn take(message: Message, batch: &mut Vec<SpanData>, flush: &mut Option<oneshot::Sender<()>>) {
    match message {
        Message::Span(span) => batch.push(*span),
        Message::Flush(done) => *flush = Some(done),
    }
}

/// The span of a call, by the semantic conventions for HTTP servers.
fn span(
    context: TraceContext,
    parent: Option<u64>,
    record: &CallRecord<'_>,
    scope: InstrumentationScope,
) -> SpanData {
    let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(record.at.as_nanos());
    let method = if KNOWN_METHODS.contains(&record.method) { record.method } else { "_OTHER" };
    let name = if method == "_OTHER" { "HTTP" } else { method };
    let status = record.finished.status;
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(context.trace_id.to_be_bytes()),
            SpanId::from_bytes(context.span_id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: parent.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_be_bytes())),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Server,
        name: format!("{name} {}", record.route).into(),
        start_time: start,
        end_time: start + record.finished.duration,
        attributes: attributes(method, record),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if status >= 500 { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope,
    }
}

/// The query is left out: it may carry secrets, and collectors keep what they get.
fn attributes(method: &str, record: &CallRecord<'_>) -> Vec<KeyValue> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let finished = &record.finished;
    let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut all = vec![
        KeyValue::new("http.request.method", method.to_owned()),
        KeyValue::new("url.scheme", record.scheme.to_owned()),
        KeyValue::new("url.path", record.target.split('?').next().unwrap_or_default().to_owned()),
        KeyValue::new("http.route", record.route.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(finished.status)),
        KeyValue::new("http.request.body.size", size(finished.request_bytes)),
        KeyValue::new("http.response.body.size", size(finished.response_bytes)),
        KeyValue::new("client.address", record.client.to_canonical().to_string()),
        KeyValue::new("network.protocol.version", format!("{:?}", record.version).replace("HTTP/", "")),
        KeyValue::new("tidegate.upstream", record.upstream.to_owned()),
        KeyValue::new("tidegate.request_id", text(record.request_id)),
    ];
    let mut optional = |key: &'static str, value: Option<String>| {
        all.extend(value.map(|value| KeyValue::new(key, value)));
    };
    optional("http.request.method_original", (method == "_OTHER").then(|| record.method.to_owned()));
    optional("server.address", record.host.map(text));
    optional("user_agent.original", record.user_agent.map(text));
    optional("tidegate.endpoint", record.endpoint.map(str::to_owned));
    optional("tidegate.reason", record.reason.map(str::to_owned));
    optional("tidegate.limit", record.limit.map(str::to_owned));
    optional("error.type", (finished.status >= 500).then(|| finished.status.to_string()));
    if let Some(code) = finished.grpc_status {
        all.push(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
    }
    if let Some(head) = finished.head_duration {
        all.push(KeyValue::new("tidegate.head_seconds", head.as_secs_f64()));
    }
    all
}

#[cfg(test)]
mod tests;
