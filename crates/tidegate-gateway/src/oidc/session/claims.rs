//! What is known of a user: claims, as texts that lists, fields and keys of limits are made of.

use std::{borrow::Cow, collections::BTreeMap};

use http::HeaderValue;
use serde_json::{Map, Value as Json};

/// The claims of a user that were kept at the login.
#[derive(Clone, Default)]
pub struct Claims(Map<String, Json>);

impl Claims {
    /// Claims as a session keeps them.
    pub(crate) fn read(attributes: &str) -> Self {
        Self(serde_json::from_str(attributes).unwrap_or_default())
    }

    /// All claims of an ID token, of which those that are `wanted` stay.
    pub(super) fn of(mut all: Map<String, Json>, wanted: impl Fn(&str) -> bool) -> Self {
        all.retain(|claim, _| wanted(claim));
        Self(all)
    }

    /// As a session keeps them.
    pub(super) fn write(&self) -> Box<str> {
        serde_json::to_string(&self.0).expect("claims came as JSON").into()
    }

    /// A claim as a text: of a list its texts, with commas between. None when there is no such claim, or it is no text.
    pub fn text(&self, claim: &str) -> Option<Cow<'_, str>> {
        Some(match self.0.get(claim)? {
            Json::String(text) => Cow::Borrowed(text),
            Json::Number(number) => Cow::Owned(number.to_string()),
            Json::Bool(truth) => Cow::Borrowed(if *truth { "true" } else { "false" }),
            Json::Array(several) => {
                Cow::Owned(several.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(","))
            }
            Json::Null | Json::Object(_) => return None,
        })
    }

    /// A claim as the value of a field.
    pub(super) fn field(&self, claim: &str) -> Option<HeaderValue> {
        let text = self.text(claim)?;
        // As UTF-8, without what ends a field.
        let clean = !text.bytes().any(|b| b.is_ascii_control());
        clean.then(|| HeaderValue::from_bytes(text.as_bytes()).ok()).flatten()
    }

    /// Whether these claims are on every list; of a list of texts, one is enough.
    pub(super) fn are_on(&self, lists: &BTreeMap<String, Vec<String>>) -> bool {
        lists.iter().all(|(claim, allowed)| {
            let of = |text: &str| allowed.iter().any(|pattern| fits(pattern, text));
            match self.0.get(claim) {
                Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).any(of),
                Some(_) => self.text(claim).is_some_and(|text| of(&text)),
                None => false,
            }
        })
    }
}

/// Whether a text is what is allowed: itself, or `*` and its end.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => text.len() > end.len() && text.ends_with(end),
        None => pattern == text,
    }
}

/// What is known of users is theirs.
impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claims({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(claim: Json) -> Claims {
        Claims([("c".to_owned(), claim)].into_iter().collect())
    }

    #[test]
    fn claims_become_fields_and_nothing_else() {
        let value = |claim: Json| {
            claims(claim).field("c").map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
        };
        assert_eq!(value("Ann Björk".into()).as_deref(), Some("Ann Björk"));
        assert_eq!(value(json!(["a", "b"])).as_deref(), Some("a,b"));
        assert_eq!(value(true.into()).as_deref(), Some("true"));
        assert_eq!(value(7.into()).as_deref(), Some("7"));
        assert_eq!(value("a\r\nx-admin: 1".into()), None);
        assert_eq!(value(json!({ "a": 1 })), None);
        assert_eq!(value(Json::Null), None);
    }

    #[test]
    fn lists_take_whole_values_and_ends() {
        assert!(fits("ann@example.com", "ann@example.com") && fits("*@example.com", "ann@example.com"));
        assert!(!fits("*@example.com", "@example.com") && !fits("*@example.com", "ann@example.com.evil"));
        assert!(!fits("ann", "anna"));
    }

    #[test]
    fn of_a_list_of_texts_one_has_to_be_allowed_and_of_nothing_nothing_is() {
        let on = |claim: Json| claims(claim).are_on(&[("c".into(), vec!["a".into(), "true".into()])].into());
        assert!(on("a".into()) && on(json!(["b", "a"])) && on(true.into()));
        assert!(!on("a,b".into()) && !on(json!(["b"])) && !on(json!({ "a": 1 })) && !on(Json::Null));
        assert!(!Claims::default().are_on(&[("c".into(), vec!["*".into()])].into()));
        assert!(Claims::default().are_on(&BTreeMap::new()));
    }

    #[test]
    fn only_what_is_wanted_is_kept_and_it_is_read_as_it_was_written() {
        let all = json!({ "sub": "ann", "email": "a@x", "nonce": "n" });
        let kept = Claims::of(all.as_object().unwrap().clone(), |claim| claim != "nonce");
        let read = Claims::read(&kept.write());
        assert_eq!((read.text("sub").as_deref(), read.text("nonce")), (Some("ann"), None));
        assert_eq!(format!("{read:?}"), "Claims(2)");
        assert_eq!(Claims::read("no JSON").text("sub"), None);
    }
}
