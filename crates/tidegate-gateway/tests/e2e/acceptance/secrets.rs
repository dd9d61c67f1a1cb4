//! No part of a token, a cookie, a code, a verifier or a secret is anywhere that people look, in no writing: logs down to the
//! finest, traces, pages of the operator, what the store is told and keeps, files, answers to browsers, complaints about a
//! configuration, errors as text and as debugging shows them.

mod scan;

use std::{fs, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use tidegate::{
    Secret,
    token::{Grant, Login, TokenEndpoint as _, Tokens},
};
use tidegate_gateway::oidc::{
    client::{Auth, Client},
    endpoint::Endpoint,
    id_token::IdTokens,
    jose::Algorithm,
    provider::{Provider, ProviderSettings},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use self::scan::assert_none_of;
use super::*;
use crate::{
    sessions::{config, of},
    support::{
        gateway::command,
        idp::{CLIENT, SECRET},
        upstream::Upstream,
    },
};

/// Everything that the provider can do to a refresh.
fn all_that_can_happen() -> Vec<Does> {
    vec![
        Does::Says("{\"access_token\":\"at-of-nobody-else\",\"token_type\":\"mac\"}"),
        Does::Says("at-of-nobody-else: this is no JSON"),
        Does::Fails(503, Some(1)),
        Does::Fails(429, None),
        Does::Redirects,
        Does::Forges,
        Does::Mangles,
        Does::Refuses("invalid_client"),
        Does::LosesTheAnswer,
        Does::Refuses("invalid_grant"),
        Does::GrantsTo("mallory"),
    ]
}

/// What answers show: all but the cookies that a browser is given, and, where it is sent off to end its login, the ID token
/// that tells the provider which one.
#[derive(Default)]
struct Shown(Vec<u8>);

impl Shown {
    fn note(&mut self, answer: &Answer) {
        self.0.extend(answer.status.as_str().bytes());
        for (name, value) in answer.headers.iter().filter(|(name, _)| **name != http::header::SET_COOKIE) {
            let value = String::from_utf8_lossy(value.as_bytes());
            let kept = match value.split_once("id_token_hint=") {
                Some((before, after)) => {
                    format!("{before}{}", after.split_once('&').map_or("", |(_, rest)| rest))
                }
                None => value.into_owned(),
            };
            self.0.extend(format!("\n{name}: {kept}").bytes());
        }
        self.0.extend(b"\n");
        self.0.extend(&*answer.body);
    }
}

/// Everything that a server of a store is told from now on, by its own word.
async fn monitored(redis: &Redis) -> Arc<Mutex<Vec<u8>>> {
    let addr = redis.url().strip_prefix("redis://").unwrap().to_owned();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"MONITOR\r\n").await.unwrap();
    let mut begun = [0; 5];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"+OK\r\n");
    let told = Arc::<Mutex<Vec<u8>>>::default();
    let kept = Arc::clone(&told);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            kept.lock().extend(&buffer[..count]);
        }
    });
    told
}

/// Every key and every value, as the server has them and as it writes them to a disk.
async fn dumped(redis: &Redis) -> Vec<u8> {
    redis.say::<()>("SAVE").await;
    let mut all = fs::read(redis.directory.path().join("dump.rdb")).unwrap();
    let mut connection = redis.connect().await;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        all.extend(&key);
        let value: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
        all.extend(value.unwrap_or_default());
    }
    all
}

#[tokio::test]
async fn no_part_of_a_secret_is_seen_whatever_happens() {
    let (idp, behind) = (Idp::start().await, Behind::start().await);
    let redis = Redis::start(&["--rdbcompression", "no", "--dbfilename", "dump.rdb"]);
    let told = monitored(&redis).await;
    // Takes spans as they come, and says that it can not.
    let spans = Arc::<Mutex<Vec<u8>>>::default();
    let kept = Arc::clone(&spans);
    let collector = Upstream::start(move |request| {
        let kept = Arc::clone(&kept);
        async move {
            let sent = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
            kept.lock().extend(&*sent);
            http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "0")
                .body(client::empty())
                .unwrap()
        }
    })
    .await;
    let finest =
        "level: \"debug,tidegate=trace,tidegate_core=trace,tidegate_gateway=trace,tidegate_redis=trace\"";
    let mut gateway = of(|| {
        let config = config(&behind, idp.issuer(), "max_wait: 500ms\nopen_for: 10ms", &patient(&redis));
        let traced = format!("tracing: {{ otlp: \"http://{}\", sample_percent: 100 }}\n", collector.addr());
        traced + &config.replace("level: debug", finest)
    })
    .await;
    let mut secrets = Vec::new();
    let mut places: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut shown = Shown::default();
    // One that is served, and traced from its browser on.
    let served = log_in(&gateway).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fields = [
        ("cookie", served.as_str()),
        ("sec-fetch-mode", "cors"),
        ("traceparent", parent),
        ("tracestate", "a=b"),
    ];
    let answer = client::get_with(gateway.http(), "/wanted?token=mine", &fields).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    shown.note(&answer);
    secrets.push(served.replace("tidegate=", ""));
    secrets.push(STANDARD.encode((1..=32).collect::<Vec<u8>>()));
    idp.life(SHORT);
    let mut cookies = Vec::new();
    for _ in all_that_can_happen() {
        let mut browser = Browser::default();
        let away = browser.goes(&gateway, "/wanted?token=mine").await;
        shown.note(&away);
        let back = at_provider(&away).await;
        secrets.extend(browser.cookies.values().cloned());
        let landed = browser.goes(&gateway, &back).await;
        assert_eq!(landed.status, StatusCode::SEE_OTHER, "{}", landed.text());
        shown.note(&landed);
        // The same code again.
        shown.note(&browser.goes(&gateway, &back).await);
        secrets.extend(browser.cookies.values().cloned());
        cookies.push((format!("tidegate={}", browser.session().unwrap()), browser));
    }
    are_over().await;
    for (does, (cookie, _)) in all_that_can_happen().into_iter().zip(&cookies) {
        idp.always(does);
        for _ in 0..3 {
            shown.note(&fetch(&gateway, cookie).await);
        }
    }
    idp.always(Does::Grants);
    places.push(("the store", dumped(&redis).await));
    for (cookie, browser) in &mut cookies {
        shown.note(&fetch(&gateway, cookie).await);
        shown.note(&browser.goes(&gateway, "/oauth2/logout").await);
        shown.note(&fetch(&gateway, cookie).await);
    }
    places.push(("the store after the logouts", dumped(&redis).await));
    for page in ["/", "/live", "/ready", "/metrics", "/state", "/config"] {
        for accept in ["application/json", "text/html"] {
            let shown = client::get_at(gateway.admin(), page, &[("accept", accept)]).await;
            places.push((page, [shown.body.to_vec(), format!("{:?}", shown.headers).into_bytes()].concat()));
        }
    }
    assert!(gateway.drain().await.success());
    let log = gateway.process().output();
    assert!(log.contains("/wanted"), "calls are in the log");
    let (told, spans) = (told.lock().clone(), spans.lock().clone());
    assert!(
        told.windows(7).any(|part| part == b"session")
            && spans.windows(8).any(|part| part == b"/wanted?" || part == b"url.path")
    );
    let upstreams: Vec<String> = behind
        .seen()
        .iter()
        .flat_map(|fields| {
            fields.iter().map(|(name, value)| format!("{name}: {value:?}")).collect::<Vec<_>>()
        })
        .filter(|field| !field.starts_with("authorization: "))
        .collect();
    assert!(upstreams.iter().any(|field| field.starts_with("traceparent: ")), "{upstreams:?}");
    places.extend([
        ("the log", log.into_bytes()),
        ("what the store was told", told),
        ("a trace", spans),
        ("an answer", shown.0),
        ("a field of a call to an upstream", upstreams.join("\n").into_bytes()),
    ]);
    secrets.extend(idp.secrets());
    assert_none_of(&secrets, &places);
}

#[tokio::test]
async fn no_part_of_a_secret_is_in_the_files_of_a_gateway_without_a_store() {
    let (idp, behind, place) = (Idp::start().await, Behind::start().await, tempfile::tempdir().unwrap());
    let settings = format!("file: {}", place.path().join("sessions.sealed").display());
    let mut gateway = of(|| config(&behind, idp.issuer(), &settings, "memory://")).await;
    idp.life(SHORT);
    let cookies = log_in_all(&gateway, 10).await;
    are_over().await;
    for does in [Does::Grants, Does::Mangles, Does::LosesTheAnswer] {
        idp.always(does);
        for cookie in &cookies {
            fetch(&gateway, cookie).await;
        }
    }
    let mut secrets: Vec<String> = cookies.iter().map(|cookie| cookie.replace("tidegate=", "")).collect();
    secrets.extend(idp.secrets());
    let mut files = contents(place.path());
    assert!(gateway.drain().await.success());
    files.extend(contents(place.path()));
    // Beside the secrets that it was given, it leaves nothing in its own directory.
    for given in ["secret", "session.key"] {
        fs::remove_file(gateway.directory().join(given)).unwrap();
    }
    files.extend(contents(gateway.directory()));
    assert_none_of(&secrets, &[("a file", files), ("the log", gateway.process().output().into_bytes())]);
}

/// The names and the bytes of all files of a directory.
fn contents(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        all.extend(entry.file_name().as_encoded_bytes());
        all.extend(fs::read(entry.path()).unwrap());
    }
    assert!(!all.is_empty());
    all
}

#[tokio::test]
async fn no_part_of_a_secret_is_in_a_complaint_about_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    let secrets: Vec<String> = (0..6).map(|_| format!("{:032x}", fastrand::u128(..))).collect();
    let key = STANDARD.encode(&secrets[1].as_bytes()[..31]);
    fs::write(directory.path().join("short"), &key).unwrap();
    fs::write(directory.path().join("long"), format!("{}\n{}", secrets[2], secrets[3])).unwrap();
    let good = STANDARD.encode(secrets[4].as_bytes());
    fs::write(directory.path().join("good"), &good).unwrap();
    let secrets = [secrets, vec![key, good]].concat();
    let of = |session: &str, more: &str| {
        format!(
            "upstreams: {{ a: {{ endpoints: [http://h:1] }} }}\nroutes: [{{ upstream: a, session: s }}]\nsessions:\n  s: {{ issuer: https://i, client_id: c, {session} }}\n{more}\n"
        )
    };
    let secret = &secrets[0];
    let mut said = Vec::new();
    for text in [
        of(&format!("client_secret: {secret}, keys: [{{ file: good }}]"), ""),
        of(&format!("client_secrt: {secret}, keys: [{{ file: good }}]"), ""),
        of(&format!("client_secret: [{secret}], keys: [{{ file: good }}]"), ""),
        of(&format!("auth: none, keys: [{secret}]"), ""),
        of(&format!("auth: none, keys: {secret}"), ""),
        of("auth: none, keys: [{ file: short }]", ""),
        of("auth: none, keys: [{ file: long }]", ""),
        of("key: { file: long }, keys: [{ file: good }]", ""),
        of("auth: none, keys: [{ file: good }]", &format!("store: redis://:{secret}@[nowhere/0")),
        of("auth: none, keys: [{ file: good }]", &format!("store: redis://user:{secret}@127.0.0.1:1/none")),
        of("auth: none, keys: [{ file: good }]", &format!("registry: etcd://user:{secret}@:x/")),
        of(
            "auth: none, keys: [{ file: good }]",
            &format!("tokens: {{ t: {{ issuer: https://i, client_id: c, client_secret: {secret} }} }}"),
        ),
    ] {
        fs::write(&file, &text).unwrap();
        for verb in [&["check"][..], &["serve", "--config"]] {
            let output = command().env("RUST_BACKTRACE", "full").args(verb).arg(&file).output().unwrap();
            let is_good = output.status.success();
            said.extend([output.stdout, output.stderr].concat());
            // What only a start finds out is no fault of the text.
            assert!(!is_good || verb[0] == "check", "{text}");
        }
    }
    assert_none_of(&secrets, &[("a complaint", said)]);
}

#[tokio::test]
async fn no_part_of_a_secret_is_in_an_error_or_in_what_debugging_shows() {
    let idp = Idp::start().await;
    let settings = ProviderSettings {
        issuer: idp.issuer().parse().unwrap(),
        token_endpoint: None,
        tls: None,
        allow_http: true,
    };
    let provider = Arc::new(Provider::new("idp", settings).unwrap());
    let ids = Arc::new(IdTokens::new(Arc::clone(&provider), vec![Algorithm::Es256]));
    let client = Client { id: CLIENT.into(), auth: Auth::Secret(Secret::new(SECRET)) };
    let endpoint = Endpoint::new(provider, client, None, Some(ids));
    let mut shown = String::new();
    let mut show = |what: &dyn std::fmt::Debug| shown.push_str(&format!("{what:?}\n{what:#?}\n"));
    show(&endpoint);
    for does in all_that_can_happen().into_iter().chain([Does::Grants, Does::Hangs]) {
        idp.next(does);
        let grant = Grant::refresh(Secret::new(idp.refresh_token("ann")));
        show(&grant);
        let tokens = match endpoint.grant(grant, Duration::from_secs(2)).await {
            Ok(tokens) => tokens,
            Err(error) => {
                show(&error);
                show(&error.to_string());
                continue;
            }
        };
        show(&tokens);
        let ann = tidegate::token::Identity { issuer: idp.issuer().into(), subject: "ann".into() };
        match endpoint.verify(&tokens, Some(&ann)).await {
            Ok(identity) => show(&identity),
            Err(error) => {
                show(&error);
                show(&error.to_string());
            }
        }
        let Tokens { access, .. } = &tokens;
        show(access);
        show(&Login::of(tokens));
    }
    assert_none_of(&idp.secrets(), &[("what is shown", shown.into_bytes())]);
}
