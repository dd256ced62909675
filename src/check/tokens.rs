//! What a check keeps of a token that was verified: whose it is, and the headers that say so.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CACHE_CONTROL};

use super::decision::Subject;
use crate::{
    headers::IDENTITY,
    jwks::remembered::Kept,
    session::{Aal, Seconds},
    token::{Claims, Email},
};

/// A token that was verified.
#[derive(Debug)]
pub(super) struct Verified {
    /// Whose it is.
    pub(super) subject: Subject,
    /// `exp`
    expires_at: Seconds,
    identity: Identity,
}

/// The values of the identity headers (contract §8), in the order of [`IDENTITY`]. `Debug` prints none.
struct Identity([HeaderValue; IDENTITY.len()]);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// The names of the identity headers.
static NAMES: [HeaderName; IDENTITY.len()] = {
    let [user, session, role, email, aal, expires] = IDENTITY;
    [
        HeaderName::from_static(user),
        HeaderName::from_static(session),
        HeaderName::from_static(role),
        HeaderName::from_static(email),
        HeaderName::from_static(aal),
        HeaderName::from_static(expires),
    ]
};

impl Verified {
    /// A token of `subject` with these claims.
    pub(super) fn new(subject: Subject, claims: &Claims) -> Self {
        let expires_at = claims.expires_at.unwrap_or(0);
        let text = |id: Option<String>| id.unwrap_or_default();
        let values = [
            text(claims.user.id().map(|user| user.to_string())),
            text(claims.session.id().map(|session| session.to_string())),
            visible(claims.role.as_deref()).to_owned(),
            visible(claims.email.as_ref().map(Email::reveal)).to_owned(),
            claims.aal.map_or("", Aal::as_str).to_owned(),
            expires_at.to_string(),
        ];
        Self { subject, expires_at, identity: Identity::of(&values) }
    }

    /// The headers of the answer that allows: all of them, empty where nothing is known.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(NAMES.len() + 2);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in NAMES.iter().zip(&self.identity.0) {
            headers.insert(name.clone(), value.clone());
        }
        headers
    }
}

impl Identity {
    /// All values share one piece of memory.
    fn of(values: &[String; IDENTITY.len()]) -> Self {
        let all = Bytes::from(values.concat());
        let mut from = 0;
        Self(values.each_ref().map(|value| {
            let to = from + value.len();
            let header = HeaderValue::from_maybe_shared(all.slice(from..to));
            from = to;
            header.unwrap_or(HeaderValue::from_static(""))
        }))
    }
}

/// The text, if all of it can stand in a header as it is: a part or a spelling of it would be somebody else.
fn visible(text: Option<&str>) -> &str {
    text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())).unwrap_or("")
}

impl Kept for Verified {
    fn expires_at(&self) -> Option<Seconds> {
        Some(self.expires_at)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.identity.0.iter().map(HeaderValue::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::token::BASE64URL;

    fn verified(payload: &Value) -> Verified {
        let token = format!("e30.{}.x", BASE64URL.encode(payload.to_string()));
        Verified::new(Subject::Key, &Claims::unverified(&token).unwrap())
    }

    fn shown(payload: &Value) -> Vec<(String, String)> {
        let headers = verified(payload).headers();
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn every_identity_header_is_there_and_empty_when_unknown() {
        let named = |values: [&str; 6]| {
            let names = NAMES.iter().map(ToString::to_string);
            let identity = names.zip(values.map(str::to_owned));
            std::iter::once(("cache-control".to_owned(), "no-store".to_owned())).chain(identity).collect()
        };
        let (user, session) =
            ("0191d1a0-0000-7000-8000-00000000000a", "0191d1a0-0000-7000-8000-000000000001");
        let all = json!({"sub": user, "session_id": session, "role": "authenticated", "email": "a@b.example",
                         "aal": "aal2", "exp": 7});
        let expected: Vec<_> = named([user, session, "authenticated", "a@b.example", "aal2", "7"]);
        assert_eq!(shown(&all), expected);
        assert_eq!(shown(&json!({"exp": 7})), named(["", "", "", "", "", "7"]));
    }

    #[test]
    fn a_claim_that_cannot_stand_in_a_header_is_unknown() {
        for odd in ["a\r\nX-Auth-Role: service_role", "é@b.example", "a b@c.example", "a\0", " a"] {
            let shown = shown(&json!({"role": odd, "email": odd, "exp": 7}));
            assert!(shown.iter().all(|(_, value)| !value.contains('a') || value == "no-store"), "{shown:?}");
        }
    }

    #[test]
    fn nothing_of_a_token_is_printed() {
        let printed = format!("{:?}", verified(&json!({"email": "a@b.example", "exp": 7})));
        assert!(!printed.contains("a@b"), "{printed}");
    }
}
