//! The claims of an access token, as far as the mirror needs them (GS §3.1).
//!
//! Reading them is not believing them: [`Claims::unverified`] is for tokens that GoTrue itself just
//! handed out or accepted; everything else goes through `keys`.

use std::fmt;

use base64::Engine as _;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::BASE64URL;
use super::lenient::{self, Key, Text, Time, anything_else_is_nothing, skip_map, skip_seq};
use crate::session::{Aal, Seconds, SessionId, UserId};

/// Bytes kept of a claim's text; GoTrue's own values are far shorter.
const TEXT_MAX: usize = 256;

/// What a place that should name something says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<T> {
    /// Absent, empty, or the nil UUID, which GoTrue takes for the same.
    Nothing,
    /// This one.
    Id(T),
    /// Something that is not a UUID.
    Odd,
}

impl<T> Named<T> {
    /// The id, if there is one.
    pub fn id(self) -> Option<T> {
        match self {
            Self::Id(id) => Some(id),
            Self::Nothing | Self::Odd => None,
        }
    }
}

/// The claims that are acted on. No secret is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`
    pub user: Named<UserId>,
    /// `session_id`
    pub session: Named<SessionId>,
    /// `exp`: the token is good before that second.
    pub expires_at: Option<Seconds>,
    /// `iat`
    pub issued_at: Option<Seconds>,
    /// `nbf`: the token is good from that second on.
    pub not_before: Option<Seconds>,
    /// `aal`
    pub aal: Option<Aal>,
    /// `amr`
    pub amr: Amr,
    /// `role`, at most 256 bytes.
    pub role: Option<String>,
    /// `email`; unknown where it is longer than 256 bytes, since a part of it would be somebody else's.
    pub email: Option<Email>,
    /// `client_id`, at most 256 bytes: the OAuth client that holds the session.
    pub client_id: Option<String>,
    /// `is_anonymous`
    pub anonymous: bool,
}

impl Claims {
    /// Reads the payload of a JWT without looking at its signature.
    /// `None` where it is no JWT, or `sub`, `session_id`, `exp`, `iat` or `nbf` have a type that
    /// GoTrue would not read either. Any other claim of an odd type counts as absent.
    pub fn unverified(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        Self::from_payload(payload)
    }

    /// When the session began: the oldest time in `amr`, else `iat`.
    pub fn began(&self) -> Option<Seconds> {
        self.amr.oldest.or(self.issued_at)
    }

    /// Reads the middle part of a JWT.
    pub(crate) fn from_payload(payload: &str) -> Option<Self> {
        lenient::read(&BASE64URL.decode(payload).ok()?).ok()
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = Claims {
            user: Named::Nothing,
            session: Named::Nothing,
            expires_at: None,
            issued_at: None,
            not_before: None,
            aal: None,
            amr: Amr::default(),
            role: None,
            email: None,
            client_id: None,
            anonymous: false,
        };
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "sub" => claims.user = id(map.next_value()?, UserId::parse_as_gotrue),
                "session_id" => {
                    claims.session = id(map.next_value()?, SessionId::parse_as_gotrue);
                }
                "exp" => claims.expires_at = map.next_value::<Time>()?.0,
                "iat" => claims.issued_at = map.next_value::<Time>()?.0,
                "nbf" => claims.not_before = map.next_value::<Time>()?.0,
                "aal" => claims.aal = map.next_value::<Text<'_>>()?.0.and_then(|a| Aal::parse(&a)),
                "amr" => claims.amr = map.next_value()?,
                "role" => claims.role = short(map.next_value()?),
                "email" => claims.email = map.next_value::<Text<'_>>()?.0.and_then(|text| Email::new(&text)),
                "client_id" => claims.client_id = short(map.next_value()?),
                "is_anonymous" => claims.anonymous = map.next_value::<Truth>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(claims)
    }
}

/// The nil UUID, as the text GoTrue compares with (`internal/api/auth.go:maybeLoadUserOrSession`).
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// A claim that must be a string (or `null`, which Go reads as an empty one).
fn id<T>(text: Option<Key<'_>>, parse: fn(&str) -> Option<T>) -> Named<T> {
    let Some(Key(text)) = text else {
        return Named::Nothing;
    };
    match &*text {
        "" | NIL => Named::Nothing,
        text => parse(text).map_or(Named::Odd, Named::Id),
    }
}

fn short(text: Text<'_>) -> Option<String> {
    text.0.filter(|text| !text.is_empty()).map(|text| super::cut(&text, TEXT_MAX).to_owned())
}

/// An address that is shown to nobody but whoever asks for it: `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(Box<str>);

impl Email {
    fn new(text: &str) -> Option<Self> {
        (1..=TEXT_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// Gives it out.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// How a session was authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amr {
    /// The methods in the order of the claim, which is newest first, separated by commas; at most
    /// 256 bytes. `None` where the claim names none.
    pub methods: Option<String>,
    /// The oldest time among them: when the session began.
    pub oldest: Option<Seconds>,
}

impl Amr {
    fn add(&mut self, entry: &Entry<'_>) {
        if let Some(method) = entry.method.0.as_deref().filter(|method| !method.is_empty()) {
            let methods = self.methods.get_or_insert_default();
            if methods.len() + method.len() < TEXT_MAX {
                if !methods.is_empty() {
                    methods.push(',');
                }
                methods.push_str(method);
            }
        }
        self.oldest = match (self.oldest, entry.timestamp) {
            (Some(known), Some(other)) => Some(known.min(other)),
            (known, other) => known.or(other),
        };
    }
}

impl<'de> Deserialize<'de> for Amr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmrVisitor)
    }
}

struct AmrVisitor;

impl<'de> Visitor<'de> for AmrVisitor {
    type Value = Amr;

    anything_else_is_nothing!();

    fn visit_str<E: Error>(self, _: &str) -> Result<Amr, E> {
        Ok(Amr::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Amr, A::Error> {
        skip_map(map).map(|()| Amr::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Amr, A::Error> {
        let mut amr = Amr::default();
        while let Some(entry) = seq.next_element::<Entry<'_>>()? {
            amr.add(&entry);
        }
        Ok(amr)
    }
}

/// `{method, timestamp, …}`, or only the method's name, which GoTrue reads too
/// (`internal/tokens/service.go:AMRClaim`).
#[derive(Default)]
struct Entry<'a> {
    method: Text<'a>,
    timestamp: Option<Seconds>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry<'de>;

    anything_else_is_nothing!();

    fn visit_str<E: Error>(self, method: &str) -> Result<Self::Value, E> {
        Ok(Entry { method: Text(Some(method.to_owned().into())), timestamp: None })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq).map(|()| Entry::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entry = Entry::default();
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "method" => entry.method = map.next_value()?,
                "timestamp" => entry.timestamp = map.next_value::<Moment>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(entry)
    }
}

/// A time that may be of any type: only whole numbers count.
struct Moment(Option<Seconds>);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(number.as_u64()))
    }
}

/// `true`, or anything else.
struct Truth(bool);

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value == serde_json::Value::Bool(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "0191d1a0-0000-7000-8000-000000000001";
    const SESSION: &str = "0191d1a0-0000-7000-8000-000000000002";

    fn read(payload: &str) -> Option<Claims> {
        Claims::unverified(&format!("e30.{}.c2ln", BASE64URL.encode(payload)))
    }

    #[test]
    fn the_claims_of_a_real_token_are_read() {
        let claims = read(&format!(
            r#"{{"sub":"{USER}","aud":"authenticated","exp":2110838870,"iat":1795478870,
               "email":"a@b.example","app_metadata":{{"provider":"email"}},"role":"authenticated","aal":"aal2",
               "amr":[{{"method":"totp","timestamp":20}},{{"method":"password","timestamp":10}}],
               "session_id":"{SESSION}","is_anonymous":true,"client_id":"c"}}"#
        ))
        .unwrap();
        assert_eq!(
            claims,
            Claims {
                user: Named::Id(UserId::parse(USER).unwrap()),
                session: Named::Id(SessionId::parse(SESSION).unwrap()),
                expires_at: Some(2_110_838_870),
                issued_at: Some(1_795_478_870),
                not_before: None,
                aal: Some(Aal::Aal2),
                amr: Amr { methods: Some("totp,password".to_owned()), oldest: Some(10) },
                role: Some("authenticated".to_owned()),
                email: Email::new("a@b.example"),
                client_id: Some("c".to_owned()),
                anonymous: true,
            }
        );
    }

    #[test]
    fn absent_nil_and_odd_session_ids_are_told_apart() {
        let table = [
            ("{}".to_owned(), Named::Nothing),
            (r#"{"session_id":null}"#.to_owned(), Named::Nothing),
            (r#"{"session_id":""}"#.to_owned(), Named::Nothing),
            (format!(r#"{{"session_id":"{NIL}"}}"#), Named::Nothing),
            (r#"{"session_id":"custom-session-string"}"#.to_owned(), Named::Odd),
            (format!(r#"{{"session_id":"{SESSION}"}}"#), Named::Id(SessionId::parse(SESSION).unwrap())),
        ];
        for (payload, expected) in table {
            assert_eq!(read(&payload).unwrap().session, expected, "{payload}");
        }
    }

    #[test]
    fn needed_claims_of_a_wrong_type_spoil_the_token_and_others_do_not() {
        for payload in [
            r#"{"sub":1}"#,
            r#"{"session_id":{}}"#,
            r#"{"exp":"soon"}"#,
            r#"{"exp":[1]}"#,
            r"[]",
            r"{",
            r#""text""#,
        ] {
            assert_eq!(read(payload), None, "{payload}");
        }
        let odd = r#"{"exp":1.5,"aal":3,"amr":{"x":1},"role":[],"client_id":7,"is_anonymous":"y"}"#;
        let claims = read(odd).unwrap();
        assert_eq!(claims.expires_at, Some(1));
        assert_eq!((claims.aal, claims.role, claims.client_id), (None, None, None));
        assert_eq!((claims.amr, claims.anonymous), (Amr::default(), false));
    }

    #[test]
    fn amr_may_hold_strings_and_nonsense() {
        let claims = read(
            r#"{"amr":["otp",{"method":"password","timestamp":"x"},7,[],null,{"timestamp":3},
               {"method":"sso/saml","timestamp":5,"provider":"p"}]}"#,
        )
        .unwrap();
        assert_eq!(claims.amr.methods.as_deref(), Some("otp,password,sso/saml"));
        assert_eq!(claims.amr.oldest, Some(3));
    }

    #[test]
    fn only_three_parts_make_a_token() {
        for text in ["", "a", "e30.e30", "e30.e30.e30.e30", "e30.%%.e30", "..", "e30.e30=.x"] {
            assert_eq!(Claims::unverified(text), None, "{text}");
        }
        assert!(Claims::unverified("e30.e30.").is_some());
    }

    #[test]
    fn long_claims_are_cut() {
        let claims = read(&format!(r#"{{"role":"{}"}}"#, "é".repeat(200))).unwrap();
        assert_eq!(claims.role.map(|role| role.len()), Some(256));
    }

    #[test]
    fn an_email_is_whole_or_unknown_and_never_printed() {
        let email = |text: &str| read(&format!(r#"{{"email":{text}}}"#)).unwrap().email;
        assert_eq!(email(r#""a@b.example""#).unwrap().reveal(), "a@b.example");
        for odd in [r#""""#, "7", "null", &format!(r#""{}""#, "a".repeat(257))] {
            assert_eq!(email(odd), None, "{odd}");
        }
        assert_eq!(format!("{:?}", email(r#""a@b.example""#)), "Some(Email(…))");
    }
}
