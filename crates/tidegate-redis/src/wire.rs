//! One connection to one server: the only room that drives the `redis` crate, and that reads its errors.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tidegate::{Credentials, Server};
use tokio::time::timeout;

use crate::{Fault, Settings, StoreError};

/// How to reach a server.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) server: Server,
    pub(crate) database: u32,
    pub(crate) tls: bool,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) settings: Arc<Settings>,
}

/// Takes what a server pushes, without waiting.
pub(crate) type Pushed = Box<dyn Fn(PushInfo) + Send + Sync>;

/// An open connection. Clones share it; it closes with the last one.
#[derive(Clone)]
pub(crate) struct Wire(MultiplexedConnection);

/// Why a command was not done.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    /// An operator has to mend it.
    Fault(Fault),
    /// The key is elsewhere; the command was not done.
    Moved(Server),
    /// The key is on its way elsewhere; the command was not done.
    Ask(Server),
    /// The script is not known; it was not run.
    NoScript,
    /// The server cannot serve now, in its words; the command was not done.
    Refused { code: String, said: String },
    /// The connection is lost; the command may have been done.
    Lost(String),
    /// No answer in time; the command may have been done.
    Late(Duration),
}

/// Codes of errors of a server that could serve at other times.
const UNREADY: [&str; 11] = [
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
];

impl Failed {
    /// As a caller gets to see it.
    pub(crate) fn at(self, server: &Server) -> StoreError {
        let server = server.clone();
        match self {
            Self::Fault(fault) => StoreError::Fault { server, fault },
            Self::Moved(to) | Self::Ask(to) => {
                StoreError::Unready { server, code: "MOVED".into(), said: format!("to {to}") }
            }
            Self::NoScript => {
                StoreError::Unready { server, code: "NOSCRIPT".into(), said: "it forgets at once".into() }
            }
            Self::Refused { code, said } if UNREADY.contains(&code.as_str()) => {
                StoreError::Unready { server, code, said }
            }
            Self::Refused { code, said } => {
                StoreError::Garbled { what: format!("{code} {said} (from {server})") }
            }
            Self::Lost(why) => StoreError::Unavailable { server, why },
            Self::Late(after) => StoreError::Deadline { server, after },
        }
    }

    /// Whether the server is no longer the one to ask: its connection is gone, or its role.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Fault(Fault::Replica { .. }) => true,
            Self::Refused { code, .. } => matches!(code.as_str(), "LOADING" | "MASTERDOWN" | "READONLY"),
            Self::Fault(_) | Self::Moved(_) | Self::Ask(_) | Self::NoScript | Self::Late(_) => false,
        }
    }
}

impl Wire {
    /// Connects and logs in, within the settings' time to connect. What the server pushes goes to `pushed`.
    pub(crate) async fn open(dial: &Dial, pushed: Option<Pushed>) -> Result<Self, Failed> {
        let within = dial.settings.connect_timeout;
        let client = dial.client().map_err(|error| dial.read(&error))?;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(dial.settings.in_flight.clamp(16, 4096));
        if let Some(pushed) = pushed {
            config = config.set_push_sender(move |push| {
                pushed(push);
                Ok::<(), ()>(())
            });
        }
        match timeout(within, client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(Ok(connection)) => Ok(Self(connection)),
            Ok(Err(error)) => match dial.read(&error) {
                // A server that hangs up on a greeting may have wanted it over TLS.
                failed @ (Failed::Lost(_) | Failed::Fault(Fault::NotRedis { .. })) => {
                    let cut = !dial.tls && !error.is_connection_refusal();
                    Err(if cut && dial.answers_otherwise().await {
                        Failed::Fault(Fault::OnlyTls)
                    } else {
                        failed
                    })
                }
                failed => Err(failed),
            },
            // Redis waits for the end of a TLS greeting, which it takes for a long line.
            Err(_) if dial.tls && dial.answers_otherwise().await => Err(Failed::Fault(Fault::NoTls)),
            Err(_) => Err(Failed::Lost(format!("no connection within {within:?}"))),
        }
    }

    /// Sends a command and waits for its answer, as long as the caller cares to.
    ///
    /// # Cancel safety
    /// The command may have been sent, and then has its effect; its answer is dropped.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Failed> {
        let mut connection = self.0.clone();
        good(connection.send_packed_command(command).await)
    }

    /// Sends a command and does not look at the answer, but for an error.
    pub(crate) async fn tell(&self, command: &Cmd, within: Duration) -> Result<(), Failed> {
        timeout(within, self.send(command)).await.map_err(|_| Failed::Late(within))?.map(drop)
    }

    /// Sends a command after `ASKING`, as one.
    pub(crate) async fn send_asking(&self, command: &Cmd) -> Result<Value, Failed> {
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        let mut connection = self.0.clone();
        let answers = connection.send_packed_commands(&both, 0, 2).await.map_err(|error| read(&error))?;
        answers
            .into_iter()
            .nth(1)
            .map_or_else(|| Err(Failed::Lost("half an answer".into())), |answer| good(Ok(answer)))
    }

    /// Sends a command, waits at most `within`, and reads the answer as `T`.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd, within: Duration) -> Result<T, Failed> {
        let answer = timeout(within, self.send(command)).await.map_err(|_| Failed::Late(within))??;
        redis::from_redis_value(answer)
            .map_err(|error| Failed::Lost(format!("an answer of another kind: {error}")))
    }
}

impl Dial {
    /// Whether the server answers plainly when not over TLS, or the other way round. No login is sent.
    async fn answers_otherwise(&self) -> bool {
        let other = Self { tls: !self.tls, credentials: None, database: 0, ..self.clone() };
        let Ok(client) = other.client() else { return false };
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opening = client.get_multiplexed_async_connection_with_config(&config);
        match timeout(self.settings.connect_timeout, opening).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => match other.read(&error) {
                Failed::Fault(Fault::NotRedis { .. } | Fault::NoTls) => false,
                Failed::Fault(_) | Failed::Refused { .. } => true,
                Failed::Lost(_) | Failed::Late(_) | Failed::Moved(_) | Failed::Ask(_) | Failed::NoScript => {
                    false
                }
            },
            Err(_) => false,
        }
    }

    fn client(&self) -> Result<redis::Client, RedisError> {
        let Server { host, port } = self.server.clone();
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default()
            .set_db(i64::from(self.database))
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("tidegate", env!("CARGO_PKG_VERSION"));
        if let Some(Credentials { user, password }) = &self.credentials {
            login = login.set_password(password.expose());
            if !user.is_empty() {
                login = login.set_username(user);
            }
        }
        // Without this a small question waits for the acknowledgement of the one before.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
        if self.tls {
            let root_cert = self.settings.authorities.clone();
            return redis::Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert });
        }
        redis::Client::open(info)
    }

    /// Reads an error met before the connection was ready: these are an operator's business more often than not.
    fn read(&self, error: &RedisError) -> Failed {
        let said = words(error);
        let user = self.credentials.as_ref().map_or("", |c| c.user.as_str());
        let user = if user.is_empty() { "default" } else { user };
        let fault = match error.code() {
            Some("NOAUTH") if self.credentials.is_none() => Fault::PasswordMissing,
            Some("NOAUTH" | "WRONGPASS") => Fault::Login { user: user.to_owned(), said },
            Some("DENIED") => Fault::Protected,
            Some("NOPERM") => Fault::Forbidden { said },
            Some("ERR") if said.contains("DB index") => Fault::Database { database: self.database },
            Some("ERR") if said.contains("SELECT is not allowed in cluster") => Fault::IsCluster,
            Some("ERR") if said.contains("without any password configured") => {
                Fault::Login { user: user.to_owned(), said }
            }
            _ if error.kind() == ErrorKind::RESP3NotSupported => {
                Fault::TooOld { version: "older than 6".into() }
            }
            _ if error.kind() == ErrorKind::AuthenticationFailed => {
                Fault::Login { user: user.to_owned(), said }
            }
            // The alert of a TLS server who was spoken to plainly is not Redis's protocol.
            _ if error.kind() == ErrorKind::Parse => Fault::NotRedis { said },
            _ if self.tls && error.is_io_error() => return tls_failure(&said),
            _ => return read(error),
        };
        Failed::Fault(fault)
    }
}

/// Reads an I/O error under TLS: `redis` passes on the text of rustls only.
fn tls_failure(said: &str) -> Failed {
    let lower = said.to_ascii_lowercase();
    if lower.contains("invalidcontenttype") || lower.contains("corrupt message") {
        Failed::Fault(Fault::NoTls)
    } else if lower.contains("certificate") {
        Failed::Fault(Fault::Certificate { why: said.to_owned() })
    } else {
        Failed::Lost(said.to_owned())
    }
}

/// What is an answer, and not an error in an answer's place.
fn good(answer: redis::RedisResult<Value>) -> Result<Value, Failed> {
    match answer {
        Ok(Value::ServerError(error)) => Err(read(&RedisError::from(error))),
        Ok(answer) => Ok(answer),
        Err(error) => Err(read(&error)),
    }
}

/// Reads an error of an open connection.
fn read(error: &RedisError) -> Failed {
    let target = || error.redirect_node().and_then(|(address, _)| address_of(address));
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => target().map_or_else(|| lost(error), Failed::Moved),
        ErrorKind::Server(ServerErrorKind::Ask) => target().map_or_else(|| lost(error), Failed::Ask),
        ErrorKind::Server(ServerErrorKind::NoScript) => Failed::NoScript,
        ErrorKind::Server(ServerErrorKind::NoPerm) => Failed::Fault(Fault::Forbidden { said: words(error) }),
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let code = error.code().unwrap_or("ERR").to_owned();
            match code.as_str() {
                // The script's own `redis.call` meets the read-only replica, and wraps the words.
                _ if words(error).contains("READONLY") => {
                    Failed::Refused { code: "READONLY".into(), said: words(error) }
                }
                _ if words(error).contains("user executing the script") => {
                    Failed::Fault(Fault::Forbidden { said: words(error) })
                }
                "NOAUTH" => Failed::Fault(Fault::PasswordMissing),
                _ => Failed::Refused { code, said: words(error) },
            }
        }
        _ => lost(error),
    }
}

fn lost(error: &RedisError) -> Failed {
    Failed::Lost(error.to_string())
}

fn words(error: &RedisError) -> String {
    error.detail().map_or_else(|| error.to_string(), ToOwned::to_owned)
}

/// Reads `host:port` as servers write it: an IPv6 address may stand without brackets.
pub(crate) fn address_of(text: &str) -> Option<Server> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some(())?;
    Some(Server { host: host.to_owned(), port: port.parse().ok()? })
}
