//! What the answers of a token endpoint mean.

use http::HeaderMap;

use super::*;

fn answer(status: u16, body: &str) -> Answer {
    let json = [(http::header::CONTENT_TYPE, "application/json;charset=UTF-8".parse().unwrap())];
    Answer {
        status: status.try_into().unwrap(),
        headers: HeaderMap::from_iter(json),
        body: body.to_owned().into(),
    }
}

#[test]
fn every_failure_has_the_class_that_decides_what_becomes_of_a_session() {
    let with = |code: &str| format!(r#"{{"error":"{code}","error_description":"hunter2"}}"#);
    for (status, body, class) in [
        (400, with("invalid_grant"), "invalid_grant"),
        (400, with("login_required"), "invalid_grant"),
        (400, with("invalid_scope"), "invalid_scope"),
        (401, with("invalid_client"), "client_error"),
        (400, with("unauthorized_client"), "client_error"),
        (400, with("unsupported_grant_type"), "client_error"),
        (400, with("invalid_request"), "client_error"),
        (400, with("temporarily_unavailable"), "transient"),
        (400, with("server_error"), "transient"),
        (429, with("invalid_grant"), "transient"),
        (503, "<html>invalid_grant</html>".into(), "transient"),
        (500, String::new(), "transient"),
        (502, "<html>invalid_grant</html>".into(), "transient"),
        (502, with("invalid_grant"), "transient"),
        (504, with("invalid_grant"), "transient"),
        (504, String::new(), "transient"),
        (404, "<html>invalid_grant: token expired</html>".into(), "client_error"),
        (302, String::new(), "client_error"),
        (400, "invalid_grant".into(), "client_error"),
        (200, "{}".into(), "protocol"),
        (200, "hunter2".into(), "protocol"),
        (200, r#"{"access_token":"","token_type":"Bearer"}"#.into(), "protocol"),
        (200, r#"{"access_token":"a b","token_type":"Bearer"}"#.into(), "protocol"),
        (200, r#"{"access_token":"ab","token_type":"mac"}"#.into(), "protocol"),
    ] {
        let error = read(&answer(status, &body), 0, Binds::No).unwrap_err();
        assert_eq!(error.as_str(), class, "{status} {body}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_rotated_refresh_token_survives_an_answer_that_is_worth_nothing_else() {
    let error = read(&answer(200, r#"{"refresh_token":"r2"}"#), 0, Binds::No).unwrap_err();
    let GrantError::Protocol { refresh: Some(refresh), .. } = error else { panic!("{error:?}") };
    assert_eq!(refresh.expose(), "r2");
}

#[test]
fn a_provider_says_when_to_come_back() {
    let mut busy = answer(429, "");
    busy.headers.insert(http::header::RETRY_AFTER, "7".parse().unwrap());
    let Err(GrantError::Transient { retry_after, .. }) = read(&busy, 0, Binds::No) else { panic!() };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn lives_are_read_as_numbers_and_as_texts_or_from_the_token() {
    let life = |members: &str| {
        let body = format!(r#"{{"access_token":"abc","token_type":"bearer"{members}}}"#);
        read(&answer(200, &body), 0, Binds::No).unwrap().expires_in
    };
    assert_eq!(life(r#","expires_in":3600"#), Some(Duration::from_secs(3600)));
    assert_eq!(life(r#","expires_in":"3600""#), Some(Duration::from_secs(3600)));
    assert_eq!(life(""), None);
    assert_eq!(life(r#","expires_in":-5"#), None);
    let jwt =
        super::super::jose::SigningKey::generate().sign("JWT", &[], &serde_json::json!({ "exp": 1300 }));
    let body = format!(r#"{{"access_token":"{jwt}","token_type":"Bearer","scope":"a b"}}"#);
    let tokens = read(&answer(200, &body), 1000, Binds::No).unwrap();
    assert_eq!(tokens.expires_in, Some(Duration::from_secs(300)));
    assert_eq!((&*tokens.kind, tokens.scope.as_deref()), ("Bearer", Some("a b")));
}

#[test]
fn a_token_that_is_bound_to_a_key_is_taken_only_by_who_proves_the_key() {
    let bound = answer(200, r#"{"access_token":"abc","token_type":"DPoP","refresh_token":"r2"}"#);
    assert_eq!(&*read(&bound, 0, Binds::Must).unwrap().kind, "DPoP");
    let error = read(&bound, 0, Binds::No).unwrap_err();
    assert!(error.to_string().contains("have it grant Bearer tokens"), "{error}");
    // The refresh token is good, and the only one there is.
    let GrantError::Protocol { refresh: Some(refresh), .. } = error else { panic!("{error:?}") };
    assert_eq!(refresh.expose(), "r2");
    for code in ["use_dpop_nonce", "invalid_dpop_proof"] {
        let wanted = answer(400, &format!(r#"{{"error":"{code}"}}"#));
        let error = read(&wanted, 0, Binds::No).unwrap_err();
        assert_eq!(error.as_str(), "client_error");
        let said = error.to_string();
        assert!(said.contains(code) && said.contains("have it grant Bearer tokens"), "{said}");
        let GrantError::Misconfigured { code: told } = read(&wanted, 0, Binds::Must).unwrap_err() else {
            panic!()
        };
        assert_eq!(&*told, code);
    }
}
