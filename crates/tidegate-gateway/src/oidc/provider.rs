//! An identity provider: what it says of itself, kept fresh, and the connections and the clock that all its guards share.

mod metadata;

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;
use tidegate::{
    clock,
    keeper::{Answer, Failed, Fetch, Fetched, Keeper, Settings},
};
use tidegate_core::{Call, Lifetime};
use url::Url;

pub use self::metadata::{Aliases, Metadata};
use super::{
    date::{ProviderClock, wall},
    http::{Http, NoAnswer, Question},
};
use crate::{config, upstream::UpstreamError};

/// How long a discovery document is good. Default: 1 h, and while the provider is away for 7 days more.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
const STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Longest wait for a document of the provider. Default: 10 s.
pub(super) const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a provider is, and how it may be spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSettings {
    /// Its issuer.
    pub issuer: Url,
    /// Its token endpoint, if it has no discovery document.
    pub token_endpoint: Option<Url>,
    /// TLS towards it.
    pub tls: Option<config::ClientTls>,
    /// Whether plain HTTP is allowed, to loopback addresses.
    pub allow_http: bool,
}

/// An identity provider.
#[derive(Debug)]
pub struct Provider {
    pub(super) http: Arc<Http>,
    pub(super) clock: Arc<ProviderClock>,
    documents: Documents,
    issuer: Box<str>,
}

enum Documents {
    Fixed(Arc<Metadata>),
    Kept(Keeper<Discovery>),
}

/// Why a provider's document can not be had.
pub type NoDocument = Arc<str>;

impl Provider {
    /// Makes one. Nothing is asked yet.
    ///
    /// # Errors
    /// When its TLS files can not be used.
    pub fn new(name: &str, settings: ProviderSettings) -> Result<Self, UpstreamError> {
        let http = Arc::new(Http::new(name, &settings.issuer, settings.tls.as_ref())?);
        let clock = Arc::<ProviderClock>::default();
        // Issuers are compared as texts, so a trailing slash that the URL parser adds must not count.
        let issuer: Box<str> = issuer_text(&settings.issuer).into();
        let documents = match settings.token_endpoint {
            Some(token_endpoint) => Documents::Fixed(Arc::new(Metadata::fixed(&issuer, token_endpoint))),
            None => {
                let discovery = Discovery {
                    http: Arc::clone(&http),
                    clock: Arc::clone(&clock),
                    issuer: settings.issuer,
                    expected: issuer.clone(),
                    allow_http: settings.allow_http,
                };
                let settings = Settings {
                    lifetime: Lifetime::of(LIFETIME, STALE),
                    // Both documents may be asked for.
                    timeout: DOCUMENT_TIMEOUT * 2 + Duration::from_secs(1),
                    keys: 1,
                    idle: STALE,
                    ..Settings::default()
                };
                Documents::Kept(Keeper::new(discovery, settings).expect("these settings are in range"))
            }
        };
        Ok(Self { http, clock, documents, issuer })
    }

    /// Who it is.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its clock.
    pub fn clock(&self) -> &ProviderClock {
        &self.clock
    }

    /// What it says of itself: from memory, or asked for, at most to the call's deadline.
    ///
    /// # Errors
    /// [`NoDocument`], without anything secret.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing; the question goes on.
    pub async fn metadata(&self, call: &Call) -> Result<Arc<Metadata>, NoDocument> {
        let keeper = match &self.documents {
            Documents::Fixed(metadata) => return Ok(Arc::clone(metadata)),
            Documents::Kept(keeper) => keeper,
        };
        match keeper.get(call, &()).await {
            Answer::Fresh(metadata) | Answer::Stale { value: metadata, .. } => Ok(Arc::clone(&metadata)),
            Answer::Nothing { .. } => Err("the provider has no discovery document".into()),
            Answer::Refused(refusal) => Err(refusal.to_string().into()),
        }
    }

    /// As [`Self::metadata`], for `within`.
    ///
    /// # Errors
    /// As [`Self::metadata`].
    pub async fn metadata_within(&self, within: Duration) -> Result<Arc<Metadata>, NoDocument> {
        self.metadata(&Call::at(clock::now()).within(within)).await
    }
}

/// The issuer as providers write it: without the slash of an empty path.
pub(super) fn issuer_text(issuer: &Url) -> &str {
    let text = issuer.as_str();
    if issuer.path() == "/" { text.trim_end_matches('/') } else { text }
}

/// Whether an endpoint may be spoken to.
pub(crate) fn is_allowed(url: &Url, allow_http: bool) -> bool {
    let loopback = || match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    bare && match url.scheme() {
        "https" => url.has_host(),
        "http" => allow_http && loopback(),
        _ => false,
    }
}

/// Fetches discovery documents.
struct Discovery {
    http: Arc<Http>,
    clock: Arc<ProviderClock>,
    issuer: Url,
    expected: Box<str>,
    allow_http: bool,
}

impl Fetch for Discovery {
    type Key = ();
    type Value = Arc<Metadata>;
    type Error = NoDocument;

    async fn fetch(&self, (): &()) -> Result<Fetched<Arc<Metadata>>, Failed<NoDocument>> {
        let (openid, oauth) = well_known(&self.issuer);
        // An authorization server that is no OpenID provider has the other one (RFC 8414 §3).
        match self.document(openid).await {
            Err(NoMetadata::Absent) => self.document(oauth).await,
            found => found,
        }
        .map(|metadata| Fetched::value(Arc::new(metadata)))
        .map_err(|why| match why {
            NoMetadata::Absent => Failed::key(
                "it has no discovery document; look at the issuer, or name its token_endpoint".into(),
            ),
            NoMetadata::Away { why, retry_after } => Failed { retry_after, ..Failed::source(why.into()) },
            NoMetadata::Wrong(why) => Failed::key(why.into()),
        })
    }
}

enum NoMetadata {
    Absent,
    Away { why: String, retry_after: Option<Duration> },
    Wrong(String),
}

impl Discovery {
    async fn document(&self, url: Url) -> Result<Metadata, NoMetadata> {
        let answer = match self.http.ask(Question::get(url), DOCUMENT_TIMEOUT).await {
            Ok(answer) => answer,
            Err(NoAnswer { why, .. }) => return Err(NoMetadata::Away { why, retry_after: None }),
        };
        self.clock.learn(&self.expected, &answer.headers);
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Err(NoMetadata::Absent),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                let why = format!("the discovery document was answered with {status}");
                return Err(NoMetadata::Away { why, retry_after: answer.retry_after(wall()) });
            }
            status => {
                let why = format!("the discovery document was answered with {status}, which is not followed");
                return Err(NoMetadata::Wrong(why));
            }
        }
        let metadata: Metadata = serde_json::from_slice(&answer.body)
            .map_err(|wrong| NoMetadata::Wrong(format!("the discovery document can not be read: {wrong}")))?;
        metadata.check(&self.expected, self.allow_http).map_err(NoMetadata::Wrong)?;
        Ok(metadata)
    }
}

/// Where the two kinds of discovery documents are: OpenID appends, OAuth inserts.
fn well_known(issuer: &Url) -> (Url, Url) {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url.set_query(None);
        url
    };
    (
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    )
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Kept(_) => "Kept",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn documents_are_looked_for_where_the_two_standards_put_them() {
        let (openid, oauth) = well_known(&url("https://idp.example/realms/a/"));
        assert_eq!(openid.as_str(), "https://idp.example/realms/a/.well-known/openid-configuration");
        assert_eq!(oauth.as_str(), "https://idp.example/.well-known/oauth-authorization-server/realms/a");
        let (openid, oauth) = well_known(&url("https://idp.example"));
        assert_eq!(openid.as_str(), "https://idp.example/.well-known/openid-configuration");
        assert_eq!(oauth.as_str(), "https://idp.example/.well-known/oauth-authorization-server");
    }

    #[test]
    fn plain_http_is_for_loopback_alone_and_only_where_it_was_allowed() {
        for (text, with, without) in [
            ("https://idp.example/token", true, true),
            ("http://127.0.0.1:1/token", true, false),
            ("http://[::1]:1/token", true, false),
            ("http://localhost/token", true, false),
            ("http://idp.example/token", false, false),
            ("https://user:pass@idp.example/token", false, false),
            ("https://idp.example/token#x", false, false),
            ("file:///etc/passwd", false, false),
        ] {
            assert_eq!(
                (is_allowed(&url(text), true), is_allowed(&url(text), false)),
                (with, without),
                "{text}"
            );
        }
    }

    #[test]
    fn a_document_of_another_issuer_is_refused() {
        let metadata = Metadata::fixed("https://idp.example", url("https://idp.example/token"));
        assert_eq!(metadata.check("https://idp.example", false), Ok(()));
        assert_eq!(metadata.check("https://idp.example/", false), Ok(()));
        let wrong = metadata.check("https://other.example", false).unwrap_err();
        assert!(wrong.contains("idp.example") && wrong.contains("other.example"), "{wrong}");
        let plain = Metadata::fixed("https://idp.example", url("http://idp.example/token"));
        assert!(plain.check("https://idp.example", true).unwrap_err().contains("token_endpoint"));
    }
}
