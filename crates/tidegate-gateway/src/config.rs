//! The configuration: what it says, how it is read, and what is wrong with it.

mod defaults;
mod model;
mod units;

pub use model::{
    Algorithm, BodyBound, Bounds, Breaker, BreakerSetting, ClientTls, Config, Connections, Hold, HostHeader,
    InFlight, Limit, Listen, Log, LogFormat, Match, Off, Protocol, Retry, Route, ServerTls, Timeout, Tracing,
    Upstream,
};
pub use units::{ByteSize, HumanDuration};
