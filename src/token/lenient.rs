//! Pieces of JSON that are read for what they are worth: a value of another type than expected is
//! consumed and counts as absent, instead of failing the document around it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::session::Seconds;

/// Reads a document. What is UTF-8 as a whole, as GoTrue's always is, need not be checked string by string.
///
/// # Errors
/// As `serde_json::from_slice`.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    }
}

/// A string, or nothing. Borrows where the JSON has no escapes.
#[derive(Debug, Default)]
pub(crate) struct Text<'a>(pub(crate) Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

/// The visits that mean "another type": consume and give the empty value.
macro_rules! anything_else_is_nothing {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}
pub(crate) use anything_else_is_nothing;

/// Reads to the end of an array that is of no interest.
pub(crate) fn skip_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Reads to the end of an object that is of no interest.
pub(crate) fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<Cow<'de, str>>;

    anything_else_is_nothing!();

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq).map(|()| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        skip_map(map).map(|()| None)
    }
}

/// A string and nothing else: the key of an object's entry, or a value that must be one.
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_str(TextVisitor)?;
        Ok(Self(text.unwrap_or_default()))
    }
}

/// Whole seconds of a JWT `NumericDate` (RFC 7519 §2: may have a fraction). `null` is absent, as Go
/// has it; any other type is an error. Below zero counts as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Option<Seconds>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor).map(Self)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Option<Seconds>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since the epoch")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Self::Value, E> {
        Ok(Some(seconds))
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Self::Value, E> {
        Ok(Some(u64::try_from(seconds).unwrap_or(0)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and dropping the fraction is what GoTrue's parser does"
    )]
    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Self::Value, E> {
        Ok(Some(seconds as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_spoil_only_what_is_read_of_them() {
        let read = |json: &'static [u8]| read::<(IgnoredAny, Text<'_>)>(json).map(|(_, text)| text.0);
        assert_eq!(read(br#"["a","b"]"#).unwrap().as_deref(), Some("b"));
        assert_eq!(read(b"[\"\xff\",\"b\"]").unwrap().as_deref(), Some("b"));
        assert!(read(b"[\"a\",\"\xff\"]").is_err());
    }

    #[test]
    fn a_value_of_another_type_is_nothing_and_the_rest_is_still_read() {
        let texts: Vec<Text<'_>> =
            serde_json::from_str(r#"["a", 1, -1, 1.5, null, true, [1,[2]], {"b":{}}, "c\n"]"#).unwrap();
        let texts: Vec<_> = texts.iter().map(|text| text.0.as_deref()).collect();
        assert_eq!(texts, [Some("a"), None, None, None, None, None, None, None, Some("c\n")]);
    }

    #[test]
    fn times_are_whole_seconds() {
        let times: Vec<Time> = serde_json::from_str("[12, 12.9, -3, null, 1e30]").unwrap();
        assert_eq!(times, [Some(12), Some(12), Some(0), None, Some(u64::MAX)].map(Time));
        assert!(serde_json::from_str::<Time>("\"12\"").is_err());
    }
}
