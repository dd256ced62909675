//! Request bodies, read as GoTrue reads them.
//!
//! GoTrue uses Go's `encoding/json`: keys match in any letter case (Unicode's simple folding
//! included), of equal keys the last one counts, `null` leaves a string as it was but clears a
//! pointer. Invalid UTF-8 and lone surrogates are accepted. Reading the body differently would miss
//! a password change that GoTrue makes.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::route::Route;
use crate::scope::first_query_value;

/// The fields of a request body that matter to sessions.
#[derive(Default)]
pub(super) struct Fields {
    /// `password` is there and not `null`: it is set anew.
    pub(super) password: bool,
    /// `ban_duration` is there and not empty: the ban is set or lifted.
    pub(super) ban: bool,
    /// `grant_type`
    pub(super) grant_type: Option<String>,
    /// `refresh_token`
    pub(super) refresh_token: Option<String>,
}

impl Fields {
    /// `None` where the body is not what GoTrue would have accepted.
    pub(super) fn read(body: &[u8], route: Route, headers: &HeaderMap) -> Option<Self> {
        if route == Route::OauthToken && !says_json(headers) {
            return Some(Self::from_form(body));
        }
        // What comes after the object is GoTrue's to refuse: it said whether it did.
        Self::deserialize(&mut serde_json::Deserializer::from_slice(body)).ok()
    }

    /// `/oauth/token` takes forms as well (`internal/api/oauthserver/handlers.go:OAuthToken`).
    fn from_form(body: &[u8]) -> Self {
        let form = String::from_utf8_lossy(body);
        let value = |name| first_query_value(&form, name).map(Cow::into_owned);
        Self { grant_type: value("grant_type"), refresh_token: value("refresh_token"), ..Self::default() }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields(…)")
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("application/json"))
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(Bytes(key)) = map.next_key()? {
            match folded(&key).as_str() {
                "PASSWORD" => fields.password = map.next_value::<Option<IgnoredAny>>()?.is_some(),
                "BAN_DURATION" => {
                    if let Some(Bytes(text)) = map.next_value()? {
                        fields.ban = !text.is_empty();
                    }
                }
                "GRANT_TYPE" => keep_last(&mut fields.grant_type, map.next_value()?),
                "REFRESH_TOKEN" => keep_last(&mut fields.refresh_token, map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

fn keep_last(field: &mut Option<String>, value: Option<Bytes<'_>>) {
    if let Some(Bytes(text)) = value {
        *field = Some(String::from_utf8_lossy(&text).into_owned());
    }
}

/// A key as `encoding/json` compares it: upper case, with the two letters outside ASCII that fold
/// into it (`ſ` and the Kelvin sign).
fn folded(key: &[u8]) -> String {
    String::from_utf8_lossy(key)
        .chars()
        .map(|letter| match letter {
            'ſ' => 'S',
            '\u{212a}' => 'K',
            other => other.to_ascii_uppercase(),
        })
        .collect()
}

/// A JSON string as bytes: whatever stands between the quotes, valid UTF-8 or not.
struct Bytes<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor).map(Self)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_owned()))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text.as_bytes()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.as_bytes().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn json(body: impl AsRef<[u8]>) -> Option<Fields> {
        Fields::read(body.as_ref(), Route::UserUpdate, &HeaderMap::new())
    }

    #[test]
    fn a_password_is_set_when_go_would_set_it() {
        let table: [(&[u8], bool); 15] = [
            (br#"{"password":"x"}"#, true),
            (br#"{"password":""}"#, true),
            (br#"{"Password":"x"}"#, true),
            (br#"{"PASSWORD":"x","data":{"a":[1,{}]}}"#, true),
            ("{\"paſsword\":\"x\"}".as_bytes(), true),
            (br#"{"p\u0061ssword":"x"}"#, true),
            (br#"{"password":null}"#, false),
            (br#"{"password":"x","Password":null}"#, false),
            (br#"{"password":null,"password":"x"}"#, true),
            (br#"{"data":{"password":"x"}}"#, false),
            (b"{}", false),
            (b"{\"data\":\"\xff\",\"password\":\"\xfe\"}", true),
            (br#"{"\ud800":"\ud800","password":"\ud800"}"#, true),
            (br#"{"password":"x"} trailing"#, true),
            (br#"{"pass_word":"x"}"#, false),
        ];
        for (body, expected) in table {
            let found = json(body).map(|fields| fields.password);
            assert_eq!(found, Some(expected), "{}", String::from_utf8_lossy(body));
        }
        for body in ["", "[]", "null", "\"password\"", r#"{"password":"x""#] {
            assert!(json(body).is_none(), "{body}");
        }
    }

    #[test]
    fn a_ban_is_set_or_lifted_by_any_text_but_none() {
        let table = [
            (r#"{"ban_duration":"1h"}"#, true),
            (r#"{"ban_duration":"none"}"#, true),
            (r#"{"Ban_Duration":"1h"}"#, true),
            (r#"{"ban_duration":""}"#, false),
            (r#"{"ban_duration":null}"#, false),
            (r#"{"ban_duration":"1h","ban_duration":null}"#, true),
            (r#"{"ban_duration":"1h","ban_duration":""}"#, false),
            ("{}", false),
        ];
        for (body, expected) in table {
            assert_eq!(json(body).map(|fields| fields.ban), Some(expected), "{body}");
        }
    }

    #[test]
    fn refresh_tokens_come_from_json_and_from_forms() {
        let fields = json(r#"{"Refresh_Token":"abc"}"#).unwrap();
        assert_eq!(fields.refresh_token.as_deref(), Some("abc"));

        let mut headers = HeaderMap::new();
        let form = b"grant_type=refresh_token&refresh_token=a%62c&client_id=x";
        let read = |headers: &HeaderMap, body: &[u8]| {
            let fields = Fields::read(body, Route::OauthToken, headers)?;
            Some((fields.grant_type?, fields.refresh_token?))
        };
        let expected = Some(("refresh_token".to_owned(), "abc".to_owned()));
        assert_eq!(read(&headers, form), expected);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        let body = br#"{"grant_type":"refresh_token","refresh_token":"abc"}"#;
        assert_eq!(read(&headers, body), expected);
        assert_eq!(read(&headers, form), None);
        assert_eq!(format!("{fields:?}"), "Fields(…)");
    }
}
