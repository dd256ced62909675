//! Query strings as Go reads them, and the scope of a logout in them.
//!
//! GoTrue decides from `r.URL.Query().Get("scope")` (`internal/api/logout.go`), which is Go's
//! `net/url.ParseQuery`: a pair with a semicolon or a broken escape is dropped, `+` is a space, the
//! first value of a name counts. Reading it any other way would end other sessions than GoTrue ends.

use std::borrow::Cow;

/// Which sessions a logout is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of the user; also when no scope is given.
    Global,
    /// The one of the token.
    Local,
    /// All of the user but the one of the token.
    Others,
    /// Something GoTrue refuses with 400: ends nothing.
    Unknown,
}

impl Scope {
    /// Reads the scope from a request's raw query (without the `?`).
    pub fn of(query: &str) -> Self {
        match first_query_value(query, "scope").as_deref() {
            None | Some("" | "global") => Self::Global,
            Some("local") => Self::Local,
            Some("others") => Self::Others,
            Some(_) => Self::Unknown,
        }
    }
}

/// The first value of `name` in a raw query or a form body, as Go's `url.Values.Get` gives it.
/// Bytes that are no UTF-8 come out as U+FFFD.
pub fn first_query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Both are unescaped before the pair counts: a broken value drops the pair.
        let (key, value) = (unescape(key)?, unescape(value)?);
        (key == name).then_some(value)
    })
}

/// Go's `url.QueryUnescape`; `None` for a `%` without two hexadecimal digits after it.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    Some(Cow::Owned(String::from_utf8_lossy(&plain).into_owned()))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_what_go_makes_of_the_query() {
        let table = [
            ("", Scope::Global),
            ("scope", Scope::Global),
            ("scope=", Scope::Global),
            ("scope=global", Scope::Global),
            ("scope=local", Scope::Local),
            ("scope=others", Scope::Others),
            ("scope=%6Cocal", Scope::Local),
            ("sc%6fpe=local", Scope::Local),
            ("scope=LOCAL", Scope::Unknown),
            ("scope=all", Scope::Unknown),
            ("scope=local+", Scope::Unknown),
            ("scope=local%20", Scope::Unknown),
            ("Scope=local", Scope::Global),
            ("scope=%zz", Scope::Global),
            ("scope=%6", Scope::Global),
            ("scope=%", Scope::Global),
            ("scope=%zz&scope=local", Scope::Local),
            ("x=1;scope=local", Scope::Global),
            ("scope=local;x=1", Scope::Global),
            ("scope=local&x=1;y=2", Scope::Local),
            ("scope=local&scope=global", Scope::Local),
            ("scope=&scope=local", Scope::Global),
            ("&&scope=local", Scope::Local),
            ("=x&scope=local", Scope::Local),
            ("scope=local=", Scope::Unknown),
            ("scope=%ff", Scope::Unknown),
        ];
        for (query, expected) in table {
            assert_eq!(Scope::of(query), expected, "{query}");
        }
    }

    #[test]
    fn a_plus_is_a_space_and_the_first_value_counts() {
        assert_eq!(first_query_value("a=1+2&a=3", "a").as_deref(), Some("1 2"));
        assert_eq!(first_query_value("a+b=1", "a b").as_deref(), Some("1"));
        assert_eq!(first_query_value("a=1", "b"), None);
    }
}
