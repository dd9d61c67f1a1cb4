//! Where a call stands in a distributed trace: W3C trace context in, passed on, and spans to a collector.
//!
//! Without a collector the context passes through untouched. With one, a sampled call is a span of its own.

mod context;
mod otlp;
mod request_id;

use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;

pub use self::{
    context::{TRACEPARENT, TRACESTATE, TraceContext},
    otlp::OtlpError,
    request_id::{X_REQUEST_ID, request_id},
};
use crate::{config, record::CallRecord, state::TelemetryState};

/// Default: one call of a hundred.
const DEFAULT_PERCENT: f64 = 1.0;

/// Where one call stands in a trace. `Copy`; nothing when the call belongs to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    context: Option<TraceContext>,
    /// The span of the caller, when there was one.
    parent: Option<u64>,
    /// Whether the gateway adds a span of its own.
    recorded: Recorded,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Recorded {
    #[default]
    No,
    Yes,
}

impl Trace {
    /// Whether the gateway adds a span of its own.
    pub fn is_recorded(&self) -> bool {
        self.recorded == Recorded::Yes
    }

    /// The trace's id, for logs.
    pub fn trace_id(&self) -> Option<u128> {
        self.context.map(|context| context.trace_id)
    }
}

/// Decides about sampling and collects spans.
#[derive(Debug, Default)]
pub struct Tracer {
    collector: Option<Collector>,
}

#[derive(Debug)]
struct Collector {
    /// A call without a decision is sampled when its random trace id is below it.
    threshold: u64,
    exporter: otlp::Exporter,
}

impl Tracer {
    /// A tracer without a collector: contexts pass through.
    pub fn off() -> Self {
        Self::default()
    }

    /// Starts a tracer as `tracing` says. Spans are sent from `runtime`.
    ///
    /// # Errors
    /// When the endpoint is no URL that spans can be sent to, or the share is not one of 0 to 100 percent.
    pub fn start(tracing: &config::Tracing, runtime: &Handle) -> Result<Self, OtlpError> {
        let percent = tracing.sample_percent.unwrap_or(DEFAULT_PERCENT);
        if !(0.0..=100.0).contains(&percent) {
            return Err(OtlpError::Percent(percent));
        }
        let Some(endpoint) = &tracing.otlp else { return Ok(Self::off()) };
        // A float saturates when it becomes an integer: 100 percent is all but one of 2^64.
        let threshold = (percent / 100.0 * 2f64.powi(64)) as u64;
        let exporter = otlp::Exporter::start(endpoint, runtime)?;
        Ok(Self { collector: Some(Collector { threshold, exporter }) })
    }

    /// Finds the call's place in a trace and prepares `headers` to be passed on.
    pub fn begin(&self, headers: &mut HeaderMap) -> Trace {
        let parent = TraceContext::parse(headers);
        let Some(collector) = &self.collector else {
            return Trace { context: parent, ..Trace::default() };
        };
        let context = match parent {
            // Not recorded here: the upstream's span hangs below the caller's, as if we were not there.
            Some(parent) if !parent.is_sampled() => {
                return Trace { context: Some(parent), ..Trace::default() };
            }
            Some(parent) => parent.child(),
            None => {
                // Without a valid parent its state means nothing.
                headers.remove(TRACESTATE);
                TraceContext::root(|low_bits| {
                    low_bits < collector.threshold || collector.threshold == u64::MAX
                })
            }
        };
        context::keep_valid_state(headers);
        headers.insert(TRACEPARENT, context.header());
        let recorded = if context.is_sampled() { Recorded::Yes } else { Recorded::No };
        Trace { context: Some(context), parent: parent.map(|parent| parent.span_id), recorded }
    }

    /// Queues the span of a call that is over, if it is sampled. It never waits: a full queue drops and counts.
    pub fn finish(&self, record: &CallRecord<'_>) {
        let Recorded::Yes = record.trace.recorded else { return };
        if let (Some(collector), Some(context)) = (&self.collector, record.trace.context) {
            collector.exporter.record(context, record.trace.parent, record);
        }
    }

    /// Sends what is queued, at most for `patience`. Answers whether all of it was sent or given up.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; what is queued is sent in the background.
    pub async fn flush(&self, patience: Duration) -> bool {
        match &self.collector {
            Some(collector) => tokio::time::timeout(patience, collector.exporter.flush()).await.is_ok(),
            None => true,
        }
    }

    /// Puts what became of spans into a state.
    pub fn fill(&self, state: &mut TelemetryState) {
        if let Some(collector) = &self.collector {
            collector.exporter.fill(state);
        }
    }
}

#[cfg(test)]
mod tests;
