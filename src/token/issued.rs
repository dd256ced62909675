//! The tokens in an answer: which answers carry some is told by their form, never by the path of
//! the request (GS §1.2, the recommended rule), so that endpoints yet to come are seen too.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::RefreshToken;
use super::lenient::{self, Key, Text, anything_else_is_nothing, skip_seq};
use crate::scope::first_query_value;

/// An access token and a refresh token that GoTrue just handed out. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued<'a> {
    access: Cow<'a, str>,
    refresh: RefreshToken<'a>,
    user_id: Option<Cow<'a, str>>,
}

impl<'a> Issued<'a> {
    /// From the JSON of a 2xx answer: an object whose `access_token` and `refresh_token` are
    /// strings (GS §1.1 J and O). `None` for anything else, JSON or not.
    pub fn in_json(body: &'a [u8]) -> Option<Self> {
        let answer: Answer<'a> = lenient::read(body).ok()?;
        Self::new(answer.access?, answer.refresh?, answer.user_id)
    }

    /// From the `Location` of a 3xx answer: a fragment that has both (GS §1.1 F). GoTrue appends
    /// its fragment to whatever the redirect already ended in, so the last `#` is the one.
    pub fn in_location(location: &'a str) -> Option<Self> {
        let (_, fragment) = location.rsplit_once('#')?;
        Self::new(
            first_query_value(fragment, "access_token")?,
            first_query_value(fragment, "refresh_token")?,
            None,
        )
    }

    fn new(access: Cow<'a, str>, refresh: Cow<'a, str>, user_id: Option<Cow<'a, str>>) -> Option<Self> {
        (!access.is_empty() && !refresh.is_empty()).then(|| Self {
            access,
            refresh: RefreshToken::new(refresh),
            user_id,
        })
    }

    /// The access token, in clear: for GoTrue and nobody else (contract §6.3).
    pub fn access_token(&self) -> &str {
        &self.access
    }

    /// The refresh token.
    pub fn refresh_token(&self) -> &RefreshToken<'a> {
        &self.refresh
    }

    /// `user.id` of the answer: never touched by a token hook.
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }
}

impl fmt::Debug for Issued<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(…)")
    }
}

#[derive(Default)]
struct Answer<'a> {
    access: Option<Cow<'a, str>>,
    refresh: Option<Cow<'a, str>>,
    user_id: Option<Cow<'a, str>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Answer<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnswerVisitor)
    }
}

struct AnswerVisitor;

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = Answer<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut answer = Answer::default();
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "access_token" => answer.access = map.next_value::<Text<'_>>()?.0,
                "refresh_token" => answer.refresh = map.next_value::<Text<'_>>()?.0,
                "user" => answer.user_id = map.next_value::<User<'_>>()?.id,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(answer)
    }
}

/// The `user` object, of which only the id is wanted.
#[derive(Default)]
struct User<'a> {
    id: Option<Cow<'a, str>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for User<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UserVisitor)
    }
}

struct UserVisitor;

impl<'de> Visitor<'de> for UserVisitor {
    type Value = User<'de>;

    anything_else_is_nothing!();

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(User::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq).map(|()| User::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut user = User::default();
        while let Some(Key(key)) = map.next_key()? {
            if key == "id" {
                user.id = map.next_value::<Text<'_>>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_json_by_form() {
        let table = [
            (r#"{"access_token":"a","refresh_token":"r"}"#, Some(("a", None))),
            (
                r#"{"user":{"x":[1],"id":"u"},"refresh_token":"r","access_token":"a\u0062"}"#,
                Some(("ab", Some("u"))),
            ),
            (r#"{"access_token":"a","refresh_token":"r","user":7,"weak_password":null}"#, Some(("a", None))),
            (r#"{"access_token":"a"}"#, None),
            (r#"{"access_token":"a","refresh_token":null}"#, None),
            (r#"{"access_token":1,"refresh_token":"r"}"#, None),
            (r#"{"access_token":"","refresh_token":"r"}"#, None),
            (r#"{"session":{"access_token":"a","refresh_token":"r"}}"#, None),
            (r#"[{"access_token":"a","refresh_token":"r"}]"#, None),
            (r#"{"access_token":"a","refresh_token":"r""#, None),
            (r#"{"access_token":"a","refresh_token":"r"}x"#, None),
            (r#""access_token""#, None),
            ("", None),
        ];
        for (body, expected) in table {
            let issued = Issued::in_json(body.as_bytes());
            let found = issued.as_ref().map(|one| (one.access_token(), one.user_id()));
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn tokens_are_found_in_the_last_fragment_of_a_redirect() {
        let table = [
            ("http://x/cb?a=1#access_token=a&refresh_token=r&sb=&type=signup", true),
            ("http://x/cb#/route#access_token=a&expires_in=1&refresh_token=r", true),
            ("#access_token=a&refresh_token=r", true),
            ("http://x/cb?access_token=a&refresh_token=r", false),
            ("http://x/cb?code=c", false),
            ("http://x/cb#access_token=a", false),
            ("http://x/cb#access_token=&refresh_token=r", false),
            ("http://x/cb#error=access_denied&error_code=403&sb=", false),
            ("http://x/cb#access_token=%zz&refresh_token=r", false),
            ("", false),
        ];
        for (location, expected) in table {
            assert_eq!(Issued::in_location(location).is_some(), expected, "{location}");
        }
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let issued = Issued::in_json(br#"{"access_token":"canary","refresh_token":"canary"}"#);
        assert_eq!(format!("{issued:?}"), "Some(Issued(…))");
    }
}
