//! Where a request goes: our prefix taken off its path, GoTrue's put before it, every other byte kept.

use http::{Uri, uri::PathAndQuery};

/// `path_prefix`, and the path of `upstream.url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Empty, or `/a/b`.
    pub prefix: String,
    /// Empty, or `/a/b`.
    pub upstream: String,
}

/// The path is not below `path_prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path is not below the configured prefix")]
pub struct WrongPrefix;

impl Paths {
    /// The path as GoTrue would see it, without the query: what routes are decided by.
    ///
    /// # Errors
    /// [`WrongPrefix`].
    pub fn of_gotrue<'a>(&self, uri: &'a Uri) -> Result<&'a str, WrongPrefix> {
        let path = uri.path();
        if self.prefix.is_empty() {
            return Ok(path);
        }
        match path.strip_prefix(self.prefix.as_str()) {
            Some("") => Ok("/"),
            Some(rest) if rest.starts_with('/') => Ok(rest),
            _ => Err(WrongPrefix),
        }
    }

    /// The request target for GoTrue, in origin form.
    ///
    /// # Errors
    /// [`WrongPrefix`].
    pub fn rewrite(&self, uri: Uri) -> Result<Uri, WrongPrefix> {
        let path = self.of_gotrue(&uri)?;
        if self.prefix.is_empty() && self.upstream.is_empty() {
            return Ok(origin_form(uri));
        }
        let mut target = String::with_capacity(self.upstream.len() + path.len() + 64);
        target.push_str(&self.upstream);
        target.push_str(path);
        if let Some(query) = uri.query() {
            target.push('?');
            target.push_str(query);
        }
        PathAndQuery::try_from(target).map(Uri::from).map_err(|_| WrongPrefix)
    }
}

/// Clients may send the whole address (RFC 9112 §3.2.2); GoTrue would log a line for each.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    uri.into_parts().path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_but_the_prefix_is_kept() {
        let table = [
            ("", "", "/token?grant_type=password", Ok("/token?grant_type=password")),
            ("", "", "/a//b/../%2F?x=%zz&&y", Ok("/a//b/../%2F?x=%zz&&y")),
            ("", "", "http://example.com/user?a", Ok("/user?a")),
            ("", "", "http://example.com", Ok("/")),
            ("", "", "*", Ok("*")),
            ("/auth/v1", "", "/auth/v1/token?a=b", Ok("/token?a=b")),
            ("/auth/v1", "", "/auth/v1", Ok("/")),
            ("/auth/v1", "", "/auth/v1?x", Ok("/?x")),
            ("/auth/v1", "", "/auth/v1//token", Ok("//token")),
            ("/auth/v1", "", "/auth/v1x/token", Err(WrongPrefix)),
            ("/auth/v1", "", "/token", Err(WrongPrefix)),
            ("/auth/v1", "", "/auth/v1token", Err(WrongPrefix)),
            ("", "/auth/v1", "/token?a", Ok("/auth/v1/token?a")),
            ("/a", "/b/c", "/a/user", Ok("/b/c/user")),
            ("/a", "/b", "http://h/a/user?q", Ok("/b/user?q")),
        ];
        for (prefix, upstream, uri, expected) in table {
            let paths = Paths { prefix: prefix.to_owned(), upstream: upstream.to_owned() };
            let rewritten = paths.rewrite(uri.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(rewritten.as_deref().map_err(|error| *error), expected, "{prefix} {upstream} {uri}");
        }
    }
}
