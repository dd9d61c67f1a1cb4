//! Tokens that are bound to a key (RFC 9449): grants and calls prove possession of it, at servers that check.

use std::process::Command;

use futures_util::future::join_all;
use http::Request;

use super::*;
use crate::{
    servers::Redis,
    sessions::patient,
    support::{client::RequestBody, dpop::Resource},
};

mod certified;
mod sessions;

/// A private key as openssl makes one.
fn key() -> String {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .output()
        .unwrap();
    String::from_utf8(made.stdout).unwrap()
}

/// A gateway before `resource`, with a token of `idp` that is bound to `key`, and these further settings of it, one a line.
async fn bound(resource: &Resource, idp: &Idp, key: &str, settings: &str) -> Gateway {
    Gateway::start_with(|directory| {
        std::fs::write(directory.join("secret"), SECRET).unwrap();
        std::fs::write(directory.join("dpop.pem"), key).unwrap();
        config_at(resource.upstream().addr(), idp.issuer(), settings)
    })
    .await
}

/// The lines of a key that nobody may see.
fn secret_lines(key: &str) -> Vec<String> {
    key.lines().filter(|line| !line.starts_with("---")).map(str::to_owned).collect()
}

async fn resource(idp: &Arc<Idp>) -> Resource {
    let idp = Arc::clone(idp);
    Resource::start(move |token| idp.bound_to(token)).await
}

const WITH_A_KEY: &str = "dpop: { key: { file: dpop.pem } }";

#[tokio::test]
async fn every_call_proves_possession_of_the_key_that_its_token_is_bound_to() {
    let idp = Arc::new(Idp::start().await);
    let resource = resource(&idp).await;
    let mut gateway = bound(&resource, &idp, &key(), WITH_A_KEY).await;
    for (path, fields) in [
        ("/a", vec![]),
        ("/a?query=not+named", vec![]),
        ("/b%20c/./d/../e", vec![("dpop", "the client's"), ("dpop", "and another")]),
        ("/b", vec![("authorization", "DPoP mine"), ("host", "Orders.Example:80")]),
    ] {
        let mut request = Request::get(path);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "gateway.test");
        }
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = client::send(gateway.http(), request.body(client::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", resource.seen().refused);
    }
    assert_eq!(idp.counts().granted, 1);
    assert!(idp.asked()[0].dpop);
    let state = gateway.state().await;
    assert_eq!(state["tokens"][0]["dpop"]["refused"], 0);
    let thumbprint = state["tokens"][0]["dpop"]["thumbprint"].as_str().unwrap().to_owned();
    let token = resource.seen().served[0].3.clone();
    assert_eq!(idp.bound_to(&token), Some(thumbprint));
    let key = std::fs::read_to_string(gateway.directory().join("dpop.pem")).unwrap();
    let secrets = [idp.secrets(), secret_lines(&key)].concat();
    shows_no_secret(&mut gateway, &secrets).await;
}

fn post(body: RequestBody) -> Request<RequestBody> {
    client::request("POST", "/orders").body(body).unwrap()
}

/// A body in two pieces, the second of which comes when `go` is told.
fn in_pieces(go: tokio::sync::oneshot::Receiver<()>) -> RequestBody {
    let pieces = async_stream(go);
    client::body(http_body_util::StreamBody::new(pieces))
}

fn async_stream(
    go: tokio::sync::oneshot::Receiver<()>,
) -> impl futures_util::Stream<Item = Result<http_body::Frame<Bytes>, std::io::Error>> + Send {
    let first = futures_util::stream::once(async { Ok(http_body::Frame::data(Bytes::from_static(b"one "))) });
    let second = futures_util::stream::once(async move {
        let _ = go.await;
        Ok(http_body::Frame::data(Bytes::from_static(b"two")))
    });
    futures_util::StreamExt::chain(first, second)
}

#[tokio::test]
async fn a_call_whose_proof_lacked_the_nonce_goes_once_more_with_it() {
    let idp = Arc::new(Idp::start().await);
    for protocol in ["http1", "http2"] {
        let resource = resource(&idp).await;
        resource.nonce("n-1");
        let gateway = Gateway::start_with(|directory| {
            std::fs::write(directory.join("secret"), SECRET).unwrap();
            config_at(resource.upstream().addr(), idp.issuer(), "dpop: {}")
                .replace("    token: billing\n", &format!("    token: billing\n    protocol: {protocol}\n"))
        })
        .await;
        let get = client::get(gateway.http(), "/").await;
        assert_eq!(get.status, StatusCode::OK, "{:?}", resource.seen().refused);
        assert!(get.headers.get("dpop-nonce").is_none(), "the nonce is the gateway's");
        assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
        assert_eq!(resource.seen().refused, ["use_dpop_nonce"], "it is known from then on");
        resource.nonce("n-2");
        let answer = client::send(gateway.http(), post(client::whole("an order"))).await;
        assert_eq!(answer.status, StatusCode::OK, "{protocol}: {:?}", resource.seen().refused);
        assert_eq!(resource.seen().served.last().unwrap().2, "an order", "whole, and once");
        let (served, refused) = {
            let seen = resource.seen();
            (seen.served.len(), seen.refused.len())
        };
        assert_eq!((served, refused), (3, 2));
        gateway.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_body_that_is_gone_is_not_sent_again_and_the_next_call_has_the_nonce() {
    let idp = Arc::new(Idp::start().await);
    let resource = resource(&idp).await;
    let gateway = bound(&resource, &idp, &key(), WITH_A_KEY).await;
    resource.nonce("n-1");
    let (go, going) = tokio::sync::oneshot::channel();
    let sent = tokio::spawn(client::send(gateway.http(), post(in_pieces(going))));
    eventually("the first piece", async || resource.upstream().live() == 1).await;
    go.send(()).unwrap();
    assert_eq!(sent.await.unwrap().status, StatusCode::UNAUTHORIZED, "the client is told, and may try again");
    let (go, going) = tokio::sync::oneshot::channel();
    go.send(()).unwrap();
    let again = client::send(gateway.http(), post(in_pieces(going))).await;
    assert_eq!(again.status, StatusCode::OK, "{:?}", resource.seen().refused);
    assert_eq!(resource.seen().served[0].2, "one two");
    assert_eq!(idp.counts().granted, 1, "the token was good all the time");
}

#[tokio::test]
async fn a_provider_whose_nonces_change_is_proved_to_with_the_last_one() {
    let idp = Arc::new(Idp::start().await);
    idp.dpop_nonce("n-1");
    let resource = resource(&idp).await;
    let gateway =
        bound(&resource, &idp, &key(), "dpop: { key: { file: dpop.pem } }\nrejected_interval: 1s").await;
    assert_eq!(client::get(gateway.http(), "/").await.status, StatusCode::OK);
    assert_eq!((idp.counts().asked, idp.counts().granted), (2, 1));
    idp.dpop_nonce("n-2");
    idp.forget_access_tokens();
    eventually("the next token", async || client::get(gateway.http(), "/").await.status == StatusCode::OK)
        .await;
    assert_eq!((idp.counts().asked, idp.counts().granted), (4, 2));
    let proved: Vec<bool> = idp.asked().iter().map(|asked| asked.dpop).collect();
    assert_eq!(proved, [false, true, false, true]);
}

#[tokio::test]
async fn gateways_of_one_key_share_a_token_over_a_restart_and_those_of_another_have_their_own() {
    let (idp, redis) = (Arc::new(Idp::start().await), Redis::start(&[]));
    let resource = resource(&idp).await;
    let store = patient(&redis);
    let start = |key: String| {
        let (resource, idp, store) = (&resource, &idp, &store);
        async move {
            Gateway::start_with(|directory| {
                std::fs::write(directory.join("secret"), SECRET).unwrap();
                std::fs::write(directory.join("dpop.pem"), &key).unwrap();
                config_at(resource.upstream().addr(), idp.issuer(), WITH_A_KEY) + &format!("store: {store}\n")
            })
            .await
        }
    };
    let (one, other) = (key(), key());
    let gateways = [start(one.clone()).await, start(one.clone()).await];
    let calls = (0..60).map(|n| client::get(gateways[n % 2].http(), "/"));
    for answer in join_all(calls).await {
        assert_eq!(answer.status, StatusCode::OK, "{:?}", resource.seen().refused);
    }
    assert_eq!(idp.counts().granted, 1);
    drop(gateways);
    let again = start(one.clone()).await;
    assert_eq!(client::get(again.http(), "/").await.status, StatusCode::OK);
    assert_eq!(idp.counts().granted, 1, "the token outlived the gateways, as did the key");
    let stranger = start(other).await;
    assert_eq!(client::get(stranger.http(), "/").await.status, StatusCode::OK);
    assert_eq!((idp.counts().granted, resource.seen().refused.len()), (2, 0));
    let dump = redis_dump(&redis).await;
    assert!(dump.len() > 500, "the tokens are there");
    for secret in idp.secrets().iter().chain(&secret_lines(&one)) {
        assert!(
            !dump.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "a secret is in the store"
        );
    }
}

/// All that stands in a store, as it stands there.
async fn redis_dump(redis: &Redis) -> Vec<u8> {
    let mut connection = redis.connect().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut dump = keys.join("\n").into_bytes();
    for key in &keys {
        let kind: String = redis::cmd("TYPE").arg(key).query_async(&mut connection).await.unwrap();
        let command = if kind == "hash" { "HGETALL" } else { "GET" };
        let values: redis::Value =
            redis::cmd(command).arg(key).query_async(&mut connection).await.unwrap_or(redis::Value::Nil);
        flatten(&values, &mut dump);
    }
    dump
}

fn flatten(value: &redis::Value, into: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => into.extend(bytes),
        redis::Value::SimpleString(text) => into.extend(text.as_bytes()),
        redis::Value::Array(values) => values.iter().for_each(|value| flatten(value, into)),
        redis::Value::Map(pairs) => pairs.iter().for_each(|(name, value)| {
            flatten(name, into);
            flatten(value, into);
        }),
        _ => {}
    }
}

#[tokio::test]
async fn a_token_that_is_bound_to_nothing_is_refused_unless_the_configuration_takes_it() {
    let unbound = Does::Says(r#"{"access_token":"abc","token_type":"Bearer","expires_in":60}"#);
    for (accepts, status) in [(false, StatusCode::SERVICE_UNAVAILABLE), (true, StatusCode::OK)] {
        let idp = Idp::start().await;
        idp.always(unbound.clone());
        let upstream = Guarded::start(|token| token == "abc").await;
        let settings = if accepts { "dpop: { unbound: accept }" } else { "dpop: {}" };
        let gateway = gateway(&upstream, &idp, settings).await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(upstream.seen(), if accepts { vec!["Bearer abc"] } else { vec![] });
        let error = gateway.state().await["tokens"][0]["last_error"].clone();
        let told = error.as_str().is_some_and(|error| error.contains("dpop: { unbound: accept }"));
        assert_eq!(told, !accepts, "{error}");
    }
}

#[tokio::test]
async fn an_upstream_that_takes_itself_for_another_is_proved_to_as_that() {
    let idp = Arc::new(Idp::start().await);
    let resource = resource(&idp).await;
    resource.seen().url = Some("https://api.example/v1".to_owned());
    let mut wrong = bound(&resource, &idp, &key(), WITH_A_KEY).await;
    assert_eq!(client::get(wrong.http(), "/a").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(resource.seen().refused, ["htu", "invalid_dpop_proof"]);
    assert_eq!(wrong.state().await["tokens"][0]["dpop"]["refused"], 1);
    let said = wrong.process().output();
    assert!(said.contains("name it with dpop.url as it names itself"), "{said}");
    let settings = "dpop: { key: { file: dpop.pem }, url: https://api.example/v1/ }";
    let right = bound(&resource, &idp, &key(), settings).await;
    let answer = client::get(right.http(), "/a?b=c").await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", resource.seen().refused);
}

#[tokio::test]
async fn keys_of_other_curves_prove_too_and_are_kept_over_a_reload() {
    let idp = Arc::new(Idp::start().await);
    let resource = resource(&idp).await;
    for kind in [
        ["-algorithm", "ed25519", "-outform", "PEM"],
        ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    ] {
        let made = Command::new("openssl").arg("genpkey").args(kind).output().unwrap();
        let gateway = bound(&resource, &idp, std::str::from_utf8(&made.stdout).unwrap(), WITH_A_KEY).await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", resource.seen().refused);
    }
    let made = bound(&resource, &idp, &key(), "dpop: {}").await;
    assert_eq!(client::get(made.http(), "/").await.status, StatusCode::OK);
    let name = |state: &serde_json::Value| state["tokens"][0]["dpop"]["thumbprint"].clone();
    let before = name(&made.state().await);
    let granted = idp.counts().granted;
    made.write(&config_at(resource.upstream().addr(), idp.issuer(), "dpop: {}\nmax_wait: 20s"));
    made.state_is("the reload", |state| state["config"]["reloads"] == 1).await;
    assert_eq!(client::get(made.http(), "/").await.status, StatusCode::OK, "{:?}", resource.seen().refused);
    assert_eq!(name(&made.state().await), before);
    assert!(idp.counts().granted <= granted + 1);
}

#[tokio::test]
async fn check_says_which_key_can_not_bind_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let rsa = Command::new("openssl").args(["genpkey", "-algorithm", "RSA"]).output().unwrap().stdout;
    write("rsa.pem", std::str::from_utf8(&rsa).unwrap());
    write("dpop.pem", &key());
    write("none.pem", "hunter2");
    write(
        "session.key",
        &base64::Engine::encode(&base64::engine::general_purpose::STANDARD, (1..=32).collect::<Vec<u8>>()),
    );
    let check = |dpop: &str, more: &str, session: &str| {
        let text = format!(
            "upstreams: {{ a: {{ endpoints: [http://h:1], token: t }} }}\nroutes: [{{ upstream: a, session: s }}]\ntokens:\n  t: {{ issuer: https://i, client_id: c, auth: none, {dpop} }}\nsessions:\n  s: {{ issuer: https://i, client_id: c, auth: none, keys: [{{ file: session.key }}], {session} }}\n{more}"
        );
        write("tidegate.yaml", &text);
        let mut command = crate::support::gateway::command();
        let output = command.arg("check").arg(directory.path().join("tidegate.yaml")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    const REDIS: &str = "store: redis://127.0.0.1:6379/0\n";
    for (dpop, more, session, said) in [
        ("dpop: { key: { file: none.pem } }", "", "", "begin it with -----BEGIN PRIVATE KEY-----"),
        ("dpop: { key: { file: rsa.pem } }", "", "", "make one on a curve with: openssl genpkey"),
        ("dpop: { key: { file: nothing.pem } }", "", "", "can not be read"),
        ("dpop: { key: dpop.pem }", "", "", "a secret does not stand in the configuration"),
        ("dpop: {}", REDIS, "", "each gateway would bind them to a key that the others have not"),
        ("", REDIS, "dpop: {}", "add key: { file: dpop.pem }"),
        ("", "", "dpop: {}, file: s.sealed", "would be gone"),
        ("dpop: { url: api.example }", "", "", "write https://host, as the upstream names itself"),
        ("dpop: { url: \"https://api.example/?a\" }", "", "", "remove what follows"),
        ("dpop: { unbound: perhaps }", "", "", "refuse"),
        ("dpop: { keyfile: x }", "", "", "keyfile"),
        ("dpop: true", "", "", "dpop"),
    ] {
        let (code, output) = check(dpop, more, session);
        assert_eq!(code, Some(2), "{dpop} {more} {session}\n{output}");
        assert!(output.contains(said), "{dpop} {more} {session}: no {said:?} in\n{output}");
        assert!(!output.contains("hunter2"), "{output}");
    }
    let file = "dpop: { key: { file: dpop.pem }, url: https://api.example }";
    for (dpop, more, session) in [("dpop: {}", "", "dpop: {}"), (file, REDIS, file)] {
        let (code, output) = check(dpop, more, session);
        assert_eq!(code, Some(0), "{dpop} {more} {session}\n{output}");
    }
}
