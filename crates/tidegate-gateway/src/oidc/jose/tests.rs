use super::*;

/// RFC 7515, appendix A.3, and RFC 8037, appendix A.4.
const ES256: (&str, &str) = (
    r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#,
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
);
const ED25519: (&str, &str) = (
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
);

#[test]
fn the_tokens_of_the_standards_verify_and_no_other_does() {
    for (keys, token) in [ES256, ED25519] {
        let keys = KeySet::read(keys.as_bytes()).unwrap();
        let parts = Parts::of(token).unwrap();
        assert_eq!(keys.verify(&parts), Ok(()), "{token}");
        // One bit of the claims.
        let (header, rest) = token.split_once('.').unwrap();
        let changed = format!("{header}.{}{}", if rest.starts_with('e') { 'f' } else { 'S' }, &rest[1..]);
        let parts = Parts::of(&changed).unwrap();
        assert_eq!(keys.verify(&parts), Err(InvalidToken::Signature), "{changed}");
    }
    let other = KeySet::read(ED25519.0.as_bytes()).unwrap();
    let parts = Parts::of(ES256.1).unwrap();
    assert!(!other.knows(&parts), "a key of another kind can not have made it");
    assert_eq!(other.verify(&parts), Err(InvalidToken::Signature));
}

#[test]
fn what_a_key_signs_its_public_half_verifies() {
    let key = SigningKey::generate();
    let jwk = key.public_jwk().unwrap();
    let keys = KeySet::read(serde_json::json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let token = key.sign("JWT", &[("kid", "a".into())], &serde_json::json!({ "sub": "x" }));
    let parts = Parts::of(&token).unwrap();
    assert_eq!(parts.header.key_id.as_deref(), Some("a"));
    assert!(!keys.knows(&parts), "this key has no name");
    let token = key.sign("JWT", &[], &serde_json::json!({ "sub": "x" }));
    let parts = Parts::of(&token).unwrap();
    assert_eq!(keys.verify(&parts), Ok(()));
    assert_eq!(parts.claims::<serde_json::Value>().unwrap()["sub"], "x");
    assert!(!format!("{key:?}").contains("Pair"), "it prints as its algorithm: {key:?}");
}

#[test]
fn tokens_that_choose_how_they_are_checked_are_refused() {
    let token = |header: &str| format!("{}.{}.{}", base64url(header), base64url("{}"), base64url("x"));
    for (header, wrong) in [
        (r#"{"alg":"none"}"#, InvalidToken::Algorithm),
        (r#"{"alg":"HS256"}"#, InvalidToken::Algorithm),
        (r#"{"alg":"ES256","crit":["exp"],"exp":1}"#, InvalidToken::Critical),
        (r#"{"alg":"ES256","b64":false}"#, InvalidToken::Critical),
        (r#"{"typ":"JWT"}"#, InvalidToken::Header),
        ("nonsense", InvalidToken::Header),
    ] {
        assert_eq!(Parts::of(&token(header)).unwrap_err(), wrong, "{header}");
    }
    for text in ["", "a", "a.b", "a.b.c.d", "....", &"a".repeat(100_000)] {
        assert!(Parts::of(text).is_err(), "{text}");
    }
    assert_eq!(
        Parts::of(&format!("{}.e30.", base64url(r#"{"alg":"ES256"}"#))).unwrap_err(),
        InvalidToken::Shape
    );
}

#[test]
fn keys_that_can_not_check_signatures_are_left_out() {
    let set = |key: &str| KeySet::read(format!(r#"{{"keys":[{key}]}}"#).as_bytes()).unwrap().len();
    let p256 = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
    assert_eq!(set(&format!("{{{p256}}}")), 1);
    assert_eq!(set(&format!(r#"{{{p256},"use":"sig","alg":"ES256"}}"#)), 1);
    for more in [r#""use":"enc""#, r#""key_ops":["sign"]"#, r#""alg":"ECDH-ES""#] {
        assert_eq!(set(&format!("{{{p256},{more}}}")), 0, "{more}");
    }
    for key in
        [r#"{"kty":"oct","k":"c2VjcmV0"}"#, r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#, "5", "{}"]
    {
        assert_eq!(set(key), 0, "{key}");
    }
    assert!(KeySet::read(b"[]").is_err());
}

#[test]
fn a_key_says_what_is_wrong_with_it_and_nothing_of_itself() {
    let pem = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
    assert_eq!(SigningKey::from_pem(b"hello", None, None).unwrap_err(), InvalidKey::Pem);
    let wrong = SigningKey::from_pem(pem.as_bytes(), Some(Algorithm::Rs256), None).unwrap_err();
    assert!(wrong.to_string().contains("RS256") && !wrong.to_string().contains("aGVsbG8"), "{wrong}");
}
