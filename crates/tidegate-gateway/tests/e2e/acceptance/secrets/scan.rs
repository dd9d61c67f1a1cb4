//! Looks for parts of secrets, however they are written.

use std::collections::HashSet;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use url::form_urlencoded::byte_serialize;

/// Bytes of a secret that must not stand together anywhere.
const PART: usize = 12;

/// A secret as it may be written: as it is, in a form, as hexadecimal digits, as base64 from each of its first three bytes on,
/// and what it says if it is base64 itself.
fn writings(secret: &str) -> Vec<Vec<u8>> {
    let mut all =
        vec![secret.as_bytes().to_vec(), byte_serialize(secret.as_bytes()).collect::<String>().into_bytes()];
    let mut bytes = vec![secret.as_bytes().to_vec()];
    if let Ok(decoded) = URL_SAFE_NO_PAD.decode(secret) {
        all.push(decoded.clone());
        bytes.push(decoded);
    }
    for bytes in bytes {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        all.extend([hex.to_uppercase().into_bytes(), hex.into_bytes()]);
        for from in 0..3.min(bytes.len()) {
            let whole = &bytes[from..];
            let whole = &whole[..whole.len() / 3 * 3];
            all.extend([
                STANDARD_NO_PAD.encode(whole).into_bytes(),
                URL_SAFE_NO_PAD.encode(whole).into_bytes(),
            ]);
        }
    }
    all
}

/// A part of a secret that is in one of these places, and where.
fn found(secrets: &[String], places: &[(&str, Vec<u8>)]) -> Option<String> {
    let writings: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| writings(secret)).collect();
    places.iter().find_map(|(place, bytes)| {
        let parts: HashSet<&[u8]> = bytes.windows(PART).collect();
        let part =
            writings.iter().flat_map(|writing| writing.windows(PART)).find(|part| parts.contains(part));
        part.map(|part| format!("a part of a secret is in {place}: {:?}", String::from_utf8_lossy(part)))
    })
}

/// Asserts that no part of a secret is in any of these places.
pub(super) fn assert_none_of(secrets: &[String], places: &[(&str, Vec<u8>)]) {
    assert!(secrets.len() > 5, "{} secrets are few", secrets.len());
    places.iter().for_each(|(place, bytes)| assert!(!bytes.is_empty(), "{place} is empty"));
    assert_eq!(found(secrets, places), None);
}

#[test]
fn a_secret_is_found_in_every_writing() {
    let text = format!("at-{:032x}", fastrand::u128(..));
    let random: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
    let secrets = [text.clone(), URL_SAFE_NO_PAD.encode(&random)];
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    for written in [
        text.as_bytes()[3..20].to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        STANDARD.encode(&text).into_bytes(),
        STANDARD.encode(format!("gateway:{text}")).into_bytes(),
        STANDARD.encode(format!("x{text}")).into_bytes(),
        STANDARD.encode(format!("xy{text}")).into_bytes(),
        secrets[1].clone().into_bytes(),
        STANDARD.encode(&random).into_bytes(),
        random,
    ] {
        let text = [b"some text before ", &*written, b" and after"].concat();
        assert!(
            found(&secrets, &[("a text", text)]).is_some(),
            "{} is not found",
            String::from_utf8_lossy(&written)
        );
    }
    assert_eq!(found(&secrets, &[("a text", b"nothing of it stands here".to_vec())]), None);
}
