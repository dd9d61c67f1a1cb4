//! The configuration: what it says, how it is read, and what is wrong with it.

mod calendar;
mod cidr;
mod defaults;
mod dpop;
mod effective;
mod formats;
mod limit;
mod load;
mod mask;
mod meaning;
mod model;
mod pending;
mod preset;
mod pressure;
mod problem;
mod registry;
mod render;
mod report;
mod scalar;
mod schema;
mod secret;
mod services;
mod session;
mod store;
mod structure;
mod suggest;
mod token;
mod tree;
mod units;
mod wanted;
mod watch;

pub use calendar::{CalendarPeriod, CalendarQuota};
pub use cidr::{Cidr, InvalidCidr};
pub use dpop::{Dpop, Unbound};
pub use effective::redacted_yaml;
pub use limit::{Algorithm, Cost, Counting, EstimatedCost, InvalidLimit, Limit, OnStoreFailure, WindowStart};
pub use load::{Loaded, Source, load};
pub use model::{
    BodyBound, Bounds, Breaker, BreakerSetting, Ceiling, ClientTls, Config, Connections, Hold, HostHeader,
    InFlight, Law, Listen, Log, LogFormat, Match, Off, Order, Partitions, Protocol, Retry, Route,
    RouteInFlight, RouteKind, ServerTls, Streams, Timeout, Tracing, Upstream,
};
pub use preset::{EndpointArg, InvalidEndpoint, OnePort, embedded, from_flags, listening};
pub use pressure::{Pressure, PressureSetting};
pub use problem::{Problem, Problems, Severity};
pub use registry::{Registry, RegistryForm, RegistryLayout};
pub use render::Style;
pub use report::{check_report, summary};
pub use schema::schema;
pub use secret::{NoSecret, SecretSetting};
pub(crate) use services::instances as services_of_file;
pub use session::Session;
pub use store::{Store, StoreForm, StoreSection, StoreTls};
pub use token::{ClientAuth, GrantKind, Percent, Token};
pub use units::{ByteSize, HumanDuration};
pub use watch::{Fingerprint, Watch};

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
