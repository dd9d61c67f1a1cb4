//! How the gateway proves who it is.

use rcgen::KeyPair;
use tidegate_gateway::oidc::jose::SigningKey;

use super::*;

#[tokio::test]
async fn a_provider_that_wants_the_secret_in_the_form_gets_it_there() {
    let idp = Arc::new(Idp::start().await);
    idp.methods(&["client_secret_post"]);
    let upstream = Guarded::start(|_| true).await;
    let first = gateway(&upstream, &idp, "").await;
    assert_eq!(client::get(first.http(), "/").await.status, StatusCode::OK);
    let second = gateway(&upstream, &idp, "auth: client_secret_basic").await;
    assert_eq!(client::get(second.http(), "/").await.status, StatusCode::OK);
    let asked = idp.asked();
    assert_eq!((asked[0].auth, asked[1].auth), ("post", "basic"));
}

#[tokio::test]
async fn an_assertion_is_signed_by_the_clients_key_and_timed_by_the_providers_clock() {
    let idp = Arc::new(Idp::start().await);
    idp.clock_ahead(600);
    let key = KeyPair::generate().unwrap().serialize_pem();
    let public = SigningKey::from_pem(key.as_bytes(), None, None).unwrap().public_jwk().unwrap();
    idp.client_keys(serde_json::json!({ "keys": [public] }).to_string().into());
    let upstream = Guarded::start(|_| true).await;
    let gateway = Gateway::start_with(|directory| {
        std::fs::write(directory.join("client.pem"), &key).unwrap();
        config(&upstream, idp.issuer(), "key: { file: client.pem }\nauth: private_key_jwt")
            .replace("    client_secret: { file: secret }\n", "")
    })
    .await;
    let answer = client::get(gateway.http(), "/").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(idp.asked()[0].auth, "key");
    let state = gateway.state().await;
    let ahead = state["tokens"][0]["clock_ahead_seconds"].as_i64().unwrap();
    assert!((598..=602).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn check_says_what_proves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    let check = |token: &str| {
        let text = format!(
            "upstreams: {{ a: {{ endpoints: [http://h:1], token: t }} }}\nroutes: [{{ upstream: a }}]\ntokens:\n  t: {{ {token} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = crate::support::gateway::command().arg("check").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    std::fs::write(directory.path().join("secret"), "hunter2").unwrap();
    for (token, said) in [
        ("issuer: https://i, client_id: c", "nothing proves who the client is"),
        ("issuer: http://i, client_id: c, auth: none", "plain HTTP to another machine"),
        ("issuer: http://127.0.0.1:1, client_id: c, auth: none", "add allow_http: true"),
        ("issuer: idp, client_id: c, auth: none", "is not an issuer's URL"),
        ("issuer: \"https://u:p@i\", client_id: c, auth: none", "remove what stands before the @"),
        ("client_id: c, auth: none", "add issuer: https://idp.example"),
        ("issuer: https://i, auth: none", "`client_id` is missing"),
        (
            "issuer: https://i, client_id: c, client_secret: hunter2",
            "a secret does not stand in the configuration",
        ),
        ("issuer: https://i, client_id: c, client_secret: { file: nothing }", "can not be read"),
        ("issuer: https://i, client_id: c, auth: private_key_jwt", "add key: { file: PATH }"),
        ("issuer: https://i, client_id: c, auth: none, client_secret: { file: secret }", "has no use for it"),
        ("issuer: https://i, client_id: c, auth: none, refresh_before: 95%", "write 5% to 90%"),
        ("issuer: https://i, client_id: c, auth: none, refresh_before: 20", "is not a percentage"),
        ("issuer: https://i, client_id: c, auth: none, grant: password", "client_credentials"),
        ("issuer: https://i, client_id: c, auth: none, timeout: 0s", "write 10ms to 10m"),
        ("issuer: https://i, client_id: c, auth: none, algorithm: HS256", "write one of RS256"),
    ] {
        let (code, output) = check(token);
        assert_eq!(code, Some(2), "{token}\n{output}");
        assert!(output.contains(said), "{token}: no {said:?} in\n{output}");
        assert!(!output.contains("hunter2"), "{output}");
    }
    let (code, output) = check("issuer: https://i, client_id: c, client_secret: { env: TIDEGATE_NO_SUCH }");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("warning") && output.contains("TIDEGATE_NO_SUCH"), "{output}");
    std::fs::write(
        &file,
        "upstreams: { a: { endpoints: [http://h:1], token: biling } }\nroutes: [{ upstream: a }]\ntokens:\n  billing: { issuer: https://i, client_id: c, auth: none }\n",
    )
    .unwrap();
    let output = crate::support::gateway::command().arg("check").arg(&file).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("there is no token `biling`") && said.contains("`billing`"), "{said}");
}
