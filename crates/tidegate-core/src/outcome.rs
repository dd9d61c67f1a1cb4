//! How a call ended, as far as its gates care.

use std::time::Duration;

/// How an admitted call ended. Every gate it passed learns the same one, once.
///
/// An application's own errors are not evidence about capacity, hence three answers and not two (Netflix
/// `concurrency-limits` draws the same line), and two more for calls that have no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was served: its duration is a sample.
    Success,
    /// It ended in a way that says nothing about the dependency (a 404, a client's own mistake).
    Ignore,
    /// The dependency is overloaded or gone (429, 503, 504, a connection that failed), and may have said when to return.
    Overload {
        /// What the dependency asked for (`Retry-After`, `grpc-retry-pushback-ms`).
        retry_after: Option<Duration>,
    },
    /// Its caller went away before the answer was complete. Evidence of overload only once the call had lasted
    /// longer than the latency that is known; an impatient client says nothing.
    Abandoned,
    /// It surely never left: a later gate refused it, or the connection did. All that was taken goes back,
    /// credit included.
    Unsent,
}
