//! The lines of a request's head (RFC 9112 §3 and §5): what hyper would refuse with an empty answer is
//! refused before hyper sees it, so that the answer has GoTrue's form and is counted.

use http::Uri;

use super::framing::Violation;

/// Longer targets have no place in [`Uri`].
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// Checks a request line; says whether it is one of HTTP/1.0.
pub(super) fn request_line(line: &[u8]) -> Result<bool, Violation> {
    let (rest, http_10) = match (line.strip_suffix(b" HTTP/1.1"), line.strip_suffix(b" HTTP/1.0")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err(Violation::Ambiguous),
    };
    let method = token_len(rest);
    match (method, rest.get(method), rest.get(method + 1..)) {
        (1.., Some(b' '), Some(target)) => check_target(target)?,
        _ => return Err(Violation::Ambiguous),
    }
    Ok(http_10)
}

/// A path or a whole address. A fragment is neither: GoTrue would take it for a part of the path, others
/// would drop it.
fn check_target(target: &[u8]) -> Result<(), Violation> {
    if target.len() > MAX_TARGET {
        return Err(Violation::HeadTooLarge);
    }
    let plain = target.iter().all(|byte| is(*byte, TARGET));
    if plain && target.first() == Some(&b'/') {
        return Ok(());
    }
    let uri = Uri::try_from(target).map_err(|_| Violation::Ambiguous)?;
    let whole = uri.scheme().is_some() || matches!(target.first(), Some(b'/' | b'*'));
    if whole && !target.contains(&b'#') { Ok(()) } else { Err(Violation::Ambiguous) }
}

/// Takes a header line apart. The value may have blanks around it.
pub(super) fn header_line(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let name = token_len(line);
    match (line.get(..name), line.get(name), line.get(name + 1..)) {
        (Some(name), Some(b':'), Some(value)) if !name.is_empty() && !has_control(value) => Ok((name, value)),
        _ => Err(Violation::Ambiguous), // also a folded line, which begins with a blank
    }
}

/// How many bytes at the start can be a part of a name.
fn token_len(text: &[u8]) -> usize {
    text.iter().position(|byte| !is(*byte, TOKEN)).unwrap_or(text.len())
}

/// To the end and in bytes, without a branch for each: so many are looked at at once.
fn has_control(value: &[u8]) -> bool {
    value.iter().fold(0, |found, &byte| found | u8::from((byte < b' ' && byte != b'\t') || byte == 0x7f)) != 0
}

/// A byte that a method or a name may have (RFC 9110 §5.6.2).
const TOKEN: u8 = 1;
/// A byte that a target may have without a second look (RFC 3986 §3.3, §3.4).
const TARGET: u8 = 2;

#[expect(clippy::indexing_slicing, reason = "every byte has a class")]
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = class(byte);
        byte += 1;
    }
    classes
};

#[expect(clippy::cast_possible_truncation, reason = "the table has 256 places")]
const fn class(byte: usize) -> u8 {
    match byte as u8 {
        b'0'..=b'9'
        | b'A'..=b'Z'
        | b'a'..=b'z'
        | b'!'
        | b'$'
        | b'%'
        | b'&'
        | b'\''
        | b'*'
        | b'+'
        | b'-'
        | b'.'
        | b'_'
        | b'~' => TOKEN | TARGET,
        b'#' | b'^' | b'`' | b'|' => TOKEN,
        b'/' | b'?' | b'=' | b':' | b'@' | b'(' | b')' | b',' | b';' => TARGET,
        _ => 0,
    }
}

#[expect(clippy::indexing_slicing, reason = "every byte has a class")]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Result<bool, Violation> = Err(Violation::Ambiguous);

    #[test]
    fn request_lines_have_a_method_a_target_and_a_version() {
        for (line, expected) in [
            ("GET / HTTP/1.1", Ok(false)),
            ("M-SEARCH /a\"b//c?d={[e]}|^`f HTTP/1.0", Ok(true)),
            ("GET /\u{fc}?\u{fc} HTTP/1.1", Ok(false)),
            ("OPTIONS * HTTP/1.1", Ok(false)),
            ("GET http://a:1/b?c HTTP/1.1", Ok(false)),
            ("GET http://a HTTP/1.1", Ok(false)),
            ("", BAD),
            ("GET /", BAD),
            ("GET  / HTTP/1.1", BAD),
            ("GET /  HTTP/1.1", BAD),
            (" GET / HTTP/1.1", BAD),
            ("GET / HTTP/1.2", BAD),
            ("GET / HTTP/2.0", BAD),
            ("GET / http/1.1", BAD),
            ("G(T / HTTP/1.1", BAD),
            ("GET a HTTP/1.1", BAD),
            ("GET /a#b HTTP/1.1", BAD),
            ("GET /a?b#c HTTP/1.1", BAD),
            ("GET http://a#b HTTP/1.1", BAD),
            ("GET /<a> HTTP/1.1", BAD),
            ("GET /a?\"b\" HTTP/1.1", BAD),
            ("GET /a\0 HTTP/1.1", BAD),
            ("GET /a\tb HTTP/1.1", BAD),
            ("CONNECT a:443 HTTP/1.1", BAD),
        ] {
            assert_eq!(request_line(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(request_line(b"GET /\xff HTTP/1.1"), BAD, "not UTF-8");
        let long = format!("GET /{} HTTP/1.1", "a".repeat(MAX_TARGET));
        assert_eq!(request_line(long.as_bytes()), Err(Violation::HeadTooLarge));
    }

    #[test]
    fn header_lines_have_a_name_and_a_value() {
        for (line, good) in [
            ("A:", true),
            ("A: b", true),
            ("x_A.b!#$%&'*+-^`|~9:\tb\u{fc} ", true),
            ("", false),
            ("A", false),
            (": b", false),
            ("A : b", false),
            (" A: b", false),
            ("A b: c", false),
            ("\u{fc}: c", false),
            ("A: b\0", false),
            ("A: b\x7f", false),
            ("A: b\x1bc", false),
        ] {
            assert_eq!(header_line(line.as_bytes()).is_ok(), good, "{line:?}");
        }
    }

    /// Nothing is refused that hyper's parser takes, and nothing is let through that it refuses.
    #[test]
    fn every_byte_is_judged_as_the_http_crate_does() {
        for byte in 0..=u8::MAX {
            let name = [byte];
            let expected = http::HeaderName::from_bytes(&name).is_ok();
            assert_eq!(header_line(&[byte, b':']).is_ok(), expected, "name {byte}");
            let expected = http::HeaderValue::from_bytes(&name).is_ok();
            assert_eq!(header_line(&[b'a', b':', byte]).is_ok(), expected, "value {byte}");
            let expected = http::Method::from_bytes(&name).is_ok();
            let line = [&name[..], b" / HTTP/1.1"].concat();
            assert_eq!(request_line(&line).is_ok(), expected, "method {byte}");
            let target = [b'/', byte];
            let expected = Uri::try_from(&target[..]).is_ok() && byte != b'#';
            let line = [b"GET ", &target[..], b" HTTP/1.1"].concat();
            assert_eq!(request_line(&line).is_ok(), expected, "target {byte}");
        }
    }
}
