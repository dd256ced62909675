//! The notations a configuration value can have: how each is described to a person, and which
//! texts it admits.

use super::{database, parse, store_url::StoreUrl};

/// The notation of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IP address and port.
    Address,
    /// A path in front of every request's.
    PathPrefix,
    /// GoTrue's address.
    UpstreamUrl,
    /// A store's address, which may carry a password.
    StoreUrl,
    /// A PostgreSQL database's address, which may carry a password.
    DatabaseUrl,
    /// Where public keys are fetched from.
    Jwks,
    /// A JSON array of JWKs.
    JsonKeys,
    /// The first part of every store key.
    KeyPrefix,
    /// A user of Redis.
    Username,
    /// The name in a certificate.
    ServerName,
    /// The path of a file.
    File,
    /// The path of a folder.
    Folder,
    /// Any text but none.
    Text,
    /// `true` or `false`.
    Switch,
    /// From the first to the second, both in the notation of a duration.
    Duration(&'static str, &'static str),
    /// From the first to the second, both in the notation of a size.
    Size(&'static str, &'static str),
    /// From the first to the second.
    Count(u64, u64),
    /// `auto`, or from the first to the second.
    AutoCount(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of some of these words; empty for none.
    AnyOf(&'static [&'static str]),
    /// A list of networks in CIDR notation, or of single addresses.
    Networks,
    /// A list of words, at least one.
    Words,
}

impl Kind {
    /// What a value must be, as it stands after "expected".
    pub fn expected(self) -> String {
        match self {
            Self::Address => "an IP address and a port, such as 0.0.0.0:9999 or [::]:9999".to_owned(),
            Self::PathPrefix => "nothing, or a path that begins with / and does not end with one, such as /auth/v1".to_owned(),
            Self::UpstreamUrl => {
                "an http:// or https:// address, possibly with a port and a path, without user, query or fragment"
                    .to_owned()
            }
            Self::StoreUrl => {
                "memory:, redis://[user:password@]host[:port][/database], redis+unix:///path[?db=&user=&pass=], \
                 redis+sentinel://[user:password@]host[:port],…/master[/database], \
                 redis+cluster://[user:password@]host[:port],…, or rediss:// in place of redis:// for TLS"
                    .to_owned()
            }
            Self::DatabaseUrl => {
                "postgres://[user[:password]@]host[:port]/database[?sslmode=…&sslrootcert=…]".to_owned()
            }
            Self::Jwks => "upstream, off, or an http:// or https:// address".to_owned(),
            Self::JsonKeys => "a JSON array of JWKs".to_owned(),
            Self::KeyPrefix => "1 to 64 letters, digits or any of . _ - :".to_owned(),
            Self::Username => "the name of a Redis user, without spaces".to_owned(),
            Self::ServerName => "a DNS name or an IP address".to_owned(),
            Self::File => "the path of a file".to_owned(),
            Self::Folder => "the path of a folder that is there".to_owned(),
            Self::Text => "some text".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Duration(least, most) => {
                format!("a duration from {least} to {most}, a whole number of ms, s, m, h or d")
            }
            Self::Size(least, most) => {
                format!("a size from {least} to {most}, a whole number of bytes, KiB, MiB or GiB")
            }
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::AutoCount(least, most) => format!("auto, or a whole number from {least} to {most}"),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::AnyOf(words) => format!("a list of any of {}", words.join(", ")),
            Self::Networks => "a list of networks or addresses, such as 10.0.0.0/8 or 192.168.1.7".to_owned(),
            Self::Words => "a list of words without spaces, at least one".to_owned(),
        }
    }

    /// The name of a value in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Address => "IP:PORT",
            Self::PathPrefix => "PREFIX",
            Self::UpstreamUrl | Self::StoreUrl | Self::DatabaseUrl | Self::Jwks => "URL",
            Self::JsonKeys => "JSON",
            Self::KeyPrefix | Self::Username | Self::ServerName | Self::Text => "TEXT",
            Self::File => "FILE",
            Self::Folder => "FOLDER",
            Self::Switch => "BOOL",
            Self::Duration(..) => "DURATION",
            Self::Size(..) => "SIZE",
            Self::Count(..) | Self::AutoCount(..) => "NUMBER",
            Self::OneOf(_) => "WORD",
            Self::AnyOf(_) | Self::Networks | Self::Words => "LIST",
        }
    }

    /// Whether `text` is such a value.
    pub fn admits(self, text: &str) -> bool {
        match self {
            Self::Address => parse::address(text).is_some(),
            Self::PathPrefix => parse::path_prefix(text).is_some(),
            Self::UpstreamUrl => parse::upstream_url(text).is_some(),
            Self::StoreUrl => StoreUrl::parse(text).is_some(),
            Self::DatabaseUrl => database::Address::parse(text).is_some(),
            Self::Jwks => parse::jwks(text).is_some(),
            Self::JsonKeys => parse::json_keys(text).is_some(),
            Self::KeyPrefix => parse::key_prefix(text).is_some(),
            Self::Username => {
                !text.is_empty() && !text.contains(|sign: char| sign.is_whitespace() || sign.is_control())
            }
            Self::ServerName => rustls::pki_types::ServerName::try_from(text).is_ok(),
            Self::File | Self::Folder | Self::Text => !text.is_empty(),
            Self::Switch => parse::switch(text).is_some(),
            Self::Duration(least, most) => within(text, least, most, parse::duration),
            Self::Size(least, most) => within(text, least, most, parse::size),
            Self::Count(least, most) => parse::count(text).is_some_and(|n| (least..=most).contains(&n)),
            Self::AutoCount(..) if text == parse::AUTO => true,
            Self::AutoCount(least, most) => Self::Count(least, most).admits(text),
            Self::OneOf(words) => words.contains(&text),
            Self::AnyOf(words) => parse::list(text).all(|word| words.contains(&word)),
            Self::Networks => parse::networks(text).is_some(),
            Self::Words => {
                let plain = |word: &str| !word.contains(char::is_whitespace);
                parse::list(text).next().is_some() && parse::list(text).all(plain)
            }
        }
    }

    /// Whether several values can stand here: a list in YAML, the flag more than once.
    pub fn is_list(self) -> bool {
        matches!(self, Self::AnyOf(_) | Self::Networks | Self::Words)
    }

    /// Whether YAML's numbers and booleans are taken as they are. Elsewhere they must be quoted: `0x1f` or
    /// `1e3` as a password would not arrive as it was written.
    pub fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Switch | Self::Duration(..) | Self::Size(..) | Self::Count(..) | Self::AutoCount(..)
        )
    }
}

/// Whether the value of `text` lies between those of `least` and `most`.
fn within<T: PartialOrd>(text: &str, least: &str, most: &str, parse: fn(&str) -> Option<T>) -> bool {
    match (parse(text), parse(least), parse(most)) {
        (Some(value), Some(least), Some(most)) => least <= value && value <= most,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_range() {
        let duration = Kind::Duration("10ms", "1m");
        for (text, admitted) in [("10ms", true), ("60s", true), ("9ms", false), ("61s", false), ("x", false)]
        {
            assert_eq!(duration.admits(text), admitted, "{text}");
        }
        let size = Kind::Size("8KiB", "1MiB");
        for (text, admitted) in [("8192", true), ("1024KiB", true), ("8191", false), ("2MiB", false)] {
            assert_eq!(size.admits(text), admitted, "{text}");
        }
        let count = Kind::Count(1, 64);
        for (text, admitted) in [("1", true), ("64", true), ("0", false), ("65", false), ("auto", false)] {
            assert_eq!(count.admits(text), admitted, "{text}");
        }
        assert!(Kind::AutoCount(1, 64).admits("auto"));
        assert!(Kind::AutoCount(1, 64).admits("2"));
        assert!(!Kind::AutoCount(1, 64).admits("65"));
    }

    #[test]
    fn words_are_taken_as_they_are_written() {
        let one = Kind::OneOf(&["json", "text"]);
        for (text, admitted) in [("json", true), ("JSON", false), ("", false), ("json,text", false)] {
            assert_eq!(one.admits(text), admitted, "{text}");
        }
        let any = Kind::AnyOf(&["upstream", "store"]);
        for (text, admitted) in [("", true), ("store", true), ("upstream, store", true), ("redis", false)] {
            assert_eq!(any.admits(text), admitted, "{text}");
        }
    }
}
