//! Ids of users, sessions and factors: parsed UUIDs, never text from a request (contract §5).

use std::fmt;

use uuid::Uuid;

/// A GoTrue user, `auth.users.id`. Parsed, so it can stand in a store key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Uuid);

/// A GoTrue session, `auth.sessions.id`; never the nil UUID, which GoTrue reads as "no session".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

/// A user's second factor, `auth.mfa_factors.id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactorId(Uuid);

impl FactorId {
    /// Reads every form of a UUID that GoTrue reads (`gofrs/uuid`: hyphenated, simple, braced, URN).
    pub fn parse_as_gotrue(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|uuid| !uuid.is_nil()).map(Self)
    }
}

impl UserId {
    /// The id as a number, to sort users into groups by.
    pub fn bits(self) -> u128 {
        self.0.as_u128()
    }

    /// Reads the textual form; `None` for anything that is not a UUID, and for the nil one.
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }

    /// Reads every form of a UUID that GoTrue reads (`gofrs/uuid`: hyphenated, simple, braced, URN).
    /// For ids in tokens and requests.
    pub fn parse_as_gotrue(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|uuid| !uuid.is_nil()).map(Self)
    }
}

impl SessionId {
    /// Reads the textual form; `None` for anything that is not a UUID, and for the nil one.
    pub fn parse(text: &str) -> Option<Self> {
        parse_uuid(text).map(Self)
    }

    /// Reads every form of a UUID that GoTrue reads (`gofrs/uuid`: hyphenated, simple, braced, URN).
    /// For ids in tokens and requests; `None` for the nil one, which names no session.
    pub fn parse_as_gotrue(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|uuid| !uuid.is_nil()).map(Self)
    }

    /// From the sixteen bytes inside a v2 refresh token.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let uuid = Uuid::from_bytes(bytes);
        (!uuid.is_nil()).then_some(Self(uuid))
    }
}

/// Only the hyphenated form: that is how GoTrue prints ids, and one text per id keeps keys unique.
fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse(text).ok().filter(|uuid| !uuid.is_nil())
}

macro_rules! print_uuid {
    ($($name:ident),*) => {$(
        impl $name {
            /// Appends the hyphenated form.
            pub fn push_to(self, text: &mut String) {
                text.push_str(self.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
print_uuid!(UserId, SessionId, FactorId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_hyphenated_uuid_and_nothing_else() {
        assert!(SessionId::parse("0191d1a0-0000-7000-8000-000000000001").is_some());
        for odd in [
            "",
            "nil",
            "00000000-0000-0000-0000-000000000000",
            "0191d1a0000070008000000000000001",
            "{0191d1a0-0000-7000-8000-000000000001}",
            "0191d1a0-0000-7000-8000-00000000000g",
        ] {
            assert!(SessionId::parse(odd).is_none(), "{odd}");
        }
        let upper = UserId::parse("0191D1A0-0000-7000-8000-00000000000A").map(|id| id.to_string());
        assert_eq!(upper.as_deref(), Some("0191d1a0-0000-7000-8000-00000000000a"));
    }

    #[test]
    fn ids_in_tokens_are_read_in_every_form_gotrue_reads() {
        let plain = "0191d1a0-0000-7000-8000-00000000000a";
        for form in [
            "0191d1a0-0000-7000-8000-00000000000A",
            "0191d1a00000700080000000000000 0a",
            "0191d1a000007000800000000000000a",
            "{0191d1a0-0000-7000-8000-00000000000a}",
            "urn:uuid:0191d1a0-0000-7000-8000-00000000000a",
        ] {
            let expected = (!form.contains(' ')).then(|| plain.to_owned());
            assert_eq!(UserId::parse_as_gotrue(form).map(|id| id.to_string()), expected, "{form}");
            assert_eq!(SessionId::parse_as_gotrue(form).map(|id| id.to_string()), expected, "{form}");
        }
    }
}
