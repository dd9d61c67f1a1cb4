//! Questions to an identity provider: bounded in time and size, never redirected, and with a word on whether one that
//! failed may have had an effect.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use parking_lot::Mutex;
use rustls::AlertDescription;
use tidegate::clock;
use tidegate_core::Call;
use url::Url;

use crate::{
    body::RequestBody,
    config::{self, HostHeader, HumanDuration},
    upstream::{Reach, SendError, Upstream, UpstreamError},
};

/// Most bytes of an answer. Default: 1 MiB.
const MOST_BYTES: usize = 1 << 20;
/// Most servers that one provider's endpoints are on. Default: 8.
const MOST_ORIGINS: usize = 8;
/// Longest time to connect. Default: 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Most grants of one client at once.
pub(crate) const MOST_GRANTS: u32 = 100;
/// Most connections to each server: each grant may need one of its own, and logins, documents and revocations go beside them.
/// Default: 128.
const CONNECTIONS: u32 = 128;

/// A client towards one provider. It keeps connections, and no cookies.
pub struct Http {
    name: String,
    tls: Option<config::ClientTls>,
    origins: Mutex<HashMap<String, Arc<Upstream>>>,
}

/// A question.
pub struct Question {
    /// `GET` or `POST`.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Fields besides those that every question has.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A whole answer. It may hold tokens, so it does not print.
pub struct Answer {
    /// Its status; redirects are not followed.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// Whether the provider may have acted on the question.
    pub reached: Reached,
    /// What happened.
    pub why: String,
}

/// Whether a question that was not answered may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Surely not: it may be asked again.
    No,
    /// It may have.
    Maybe,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Http {
    /// Makes a client. Its certificate and roots are those of `tls`; without it the system's roots and no certificate.
    ///
    /// # Errors
    /// When TLS files can not be used.
    pub fn new(name: &str, issuer: &Url, tls: Option<&config::ClientTls>) -> Result<Self, UpstreamError> {
        let http = Self { name: name.to_owned(), tls: tls.cloned(), origins: Mutex::default() };
        http.server(issuer)?;
        Ok(http)
    }

    /// Asks, and waits for the whole answer for `within` at most.
    ///
    /// # Errors
    /// [`NoAnswer`] when there is none, or it is too large.
    ///
    /// # Cancel safety
    /// Dropping the future gives the question up; the provider may have acted on it.
    pub async fn ask(&self, question: Question, within: Duration) -> Result<Answer, NoAnswer> {
        let unsent = |why: String| NoAnswer { reached: Reached::No, why };
        let server = self.server(&question.url).map_err(|why| unsent(why.to_string()))?;
        let host = question.url.host_str().unwrap_or_default().to_owned();
        let request = request(question).map_err(|why| unsent(why.to_string()))?;
        let reach = Reach::default();
        let call = Call { attempts_left: 0, ..Call::at(clock::now()).within(within) };
        let asking = async {
            let endpoints = server.endpoints();
            let endpoint = endpoints.first().expect("a server was made with one endpoint");
            let sent = endpoint.send_noting(Box::new(request), &call, &reach).await;
            let response = sent.map_err(|error| match refused_certificate(&error) {
                Some(alert) => NoAnswer { reached: Reached::No, why: self.why_refused(&host, alert) },
                None => NoAnswer {
                    reached: if error.is_unsent() { Reached::No } else { Reached::Maybe },
                    why: format!("{host}: {error}"),
                },
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST_BYTES).collect().await.map_err(|error| NoAnswer {
                reached: Reached::Maybe,
                why: if error.is::<LengthLimitError>() {
                    format!("{host} answered with more than {MOST_BYTES} bytes")
                } else {
                    format!("{host} broke off inside its answer")
                },
            })?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(within, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer {
                reached: if reach.is_possible() { Reached::Maybe } else { Reached::No },
                why: format!("{host} did not answer within {}", HumanDuration(within)),
            }),
        }
    }

    /// What an operator has to mend whose certificate was refused.
    fn why_refused(&self, host: &str, alert: AlertDescription) -> String {
        match self.tls.as_ref().and_then(|tls| tls.cert.as_deref()) {
            Some(cert) => format!(
                "{host} does not take the gateway's certificate {} (TLS alert {alert:?}); look whether it has expired, and \
                 whom the provider trusts",
                cert.display()
            ),
            None => format!(
                "{host} wants a certificate of the gateway (TLS alert {alert:?}); add tls: {{ cert: PATH, key: PATH }}"
            ),
        }
    }

    /// The connections to the server of `url`.
    fn server(&self, url: &Url) -> Result<Arc<Upstream>, UpstreamError> {
        let origin = url.origin().ascii_serialization();
        let mut origins = self.origins.lock();
        if let Some(server) = origins.get(&origin) {
            return Ok(Arc::clone(server));
        }
        if origins.len() >= MOST_ORIGINS {
            // A provider that moves about; connections are opened again when they are needed.
            origins.clear();
        }
        let config = config::Upstream {
            tls: self.tls.clone().filter(|_| url.scheme() == "https"),
            connections: config::Connections {
                max: CONNECTIONS.try_into().expect("it is not 0"),
                connect_timeout: HumanDuration(CONNECT_TIMEOUT),
                ..config::Connections::default()
            },
            host: HostHeader::Endpoint,
            ..config::Upstream::at(vec![origin.clone()])
        };
        let server = Arc::new(Upstream::new(&self.name, &config)?);
        origins.insert(origin, Arc::clone(&server));
        Ok(server)
    }
}

/// The alerts of a handshake by which a server refuses a certificate, or says that there is none.
const REFUSALS: [AlertDescription; 10] = [
    AlertDescription::CertificateRequired,
    AlertDescription::NoCertificate,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::DecryptError,
    AlertDescription::AccessDenied,
];

/// The alert by which a server refused the certificate of the connection, or that there is none.
///
/// In TLS 1.3 a client may write before the server has looked at its certificate. So the question may be out, and yet surely
/// nobody has read it: a server takes nothing before the handshake is over, and these alerts belong to the handshake.
fn refused_certificate(error: &SendError) -> Option<AlertDescription> {
    let source = error.source.as_deref()?;
    let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
        return REFUSALS.contains(alert).then_some(*alert);
    }
    // Of an HTTP/2 connection only the text is left. It decides nothing but the words: the question is not out.
    let text = error.is_unsent().then(|| source.to_string())?;
    REFUSALS.into_iter().find(|alert| text.contains(&format!("received fatal alert: {alert:?}")))
}

fn request(question: Question) -> Result<http::Request<RequestBody>, http::Error> {
    let target = &question.url[url::Position::BeforePath..url::Position::AfterQuery];
    let body = match question.body {
        body if body.is_empty() && question.method == Method::GET => RequestBody::empty(),
        body => body.into(),
    };
    let mut request = http::Request::builder().method(question.method).uri(target).body(body)?;
    *request.headers_mut() = question.headers;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))),
    );
    Ok(request)
}

impl Question {
    /// Gets a document.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Posts a form.
    pub fn form(url: Url, fields: &[(&str, &str)], headers: HeaderMap) -> Self {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let mut question = Self { method: Method::POST, url, headers, body: form.finish().into() };
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        question.headers.insert(header::CONTENT_TYPE, kind);
        question
    }
}

impl Answer {
    /// When the provider wants to be asked again: whole seconds or a date (RFC 9110 §10.2.3), at most an hour.
    pub fn retry_after(&self, wall: Duration) -> Option<Duration> {
        const MOST: Duration = Duration::from_secs(60 * 60);
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        let after = match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => super::date::parse(text)?.checked_sub(wall)?,
        };
        Some(after.min(MOST))
    }

    /// Whether it says that it is JSON.
    pub fn is_json(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}
