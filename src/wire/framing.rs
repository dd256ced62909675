//! Where one HTTP/1.1 request ends and the next begins, and whether everybody would say so.
//!
//! hyper decides framing once more from the same bytes; this reader exists because it is stricter:
//! what two readers could understand differently is refused (contract §11; RFC 9112 §6.3, §11.2).
//! What it takes, hyper takes.

use memchr::memchr2;

use super::grammar;

/// hyper reads no more header lines than this into its stack buffer.
const MAX_HEADER_LINES: usize = 100;

/// Chunk extensions and trailers, up to this many bytes of each body; hyper has the same bound.
const MAX_CHUNK_OVERHEAD: usize = 16 * 1024;

/// What was wrong with a request's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The head is larger than `limits.header_bytes`, or has more than 100 lines.
    HeadTooLarge,
    /// Two readers could disagree about what the request says or where it ends.
    Ambiguous,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first byte of a head has not come yet.
    Between,
    /// Inside a head.
    Head,
    /// Inside a body.
    Body,
}

/// Follows the bytes of one connection. Holds at most one incomplete line.
#[derive(Debug)]
pub struct Framing {
    state: State,
    head: Head,
    /// The part of a line that came with an earlier read.
    carried: Vec<u8>,
    max_head: usize,
    /// Heads that were read to their end.
    heads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    HeadLines,
    Sized(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// A body that cannot be followed: nothing after it is framed any more.
    Lost,
}

/// What the lines of the current head said so far.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    lines: usize,
    http_10: bool,
    length: Option<u64>,
    chunked: bool,
    chunk_overhead: usize,
}

impl Framing {
    /// A reader at the start of a connection; heads larger than `max_head` bytes are refused.
    pub fn new(max_head: usize) -> Self {
        Self { state: State::Between, head: Head::default(), carried: Vec::new(), max_head, heads: 0 }
    }

    /// What the next byte belongs to.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Between => Stage::Between,
            State::HeadLines => Stage::Head,
            _ => Stage::Body,
        }
    }

    /// How many requests' heads were read to their end.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// How many lines of the current head were read to their end.
    pub fn head_lines(&self) -> usize {
        self.head.lines
    }

    /// How many bytes at the end of what was read are the beginning of a line of a head.
    pub fn unfinished_line(&self) -> usize {
        if self.state == State::HeadLines { self.carried.len() } else { 0 }
    }

    /// The body that is read cannot be followed.
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Takes the next bytes of the connection. On a violation: how many of them came before the line
    /// that is wrong.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(), (Violation, usize)> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = bytes.len() - rest.len();
            rest = match self.state {
                State::Between | State::HeadLines | State::ChunkSize | State::Trailers => {
                    self.line(rest).map_err(|violation| (violation, before))?
                }
                State::Sized(left) => self.skip(rest, left, State::Sized, State::Between),
                State::ChunkData(left) => self.skip(rest, left, State::ChunkData, State::ChunkEnd),
                State::ChunkEnd => self.chunk_end(rest),
                State::Lost => &[],
            };
        }
        Ok(())
    }

    /// Passes over up to `left` bytes of a body.
    fn skip<'a>(&mut self, rest: &'a [u8], left: u64, more: fn(u64) -> State, then: State) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left - here as u64;
        self.state = if left == 0 { then } else { more(left) };
        if self.state == State::Between {
            self.head = Head::default();
        }
        rest.get(here..).unwrap_or_default()
    }

    /// Takes one line, or the part of it that is there. A line ends with CR LF and has no other CR or LF.
    fn line<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], Violation> {
        if self.state == State::Between {
            self.state = State::HeadLines;
        }
        let end = match memchr2(b'\r', b'\n', rest) {
            None => return self.carry(rest, rest.len()),
            Some(at) if at + 1 == rest.len() && rest.get(at) == Some(&b'\r') => {
                return self.carry(rest, at + 1);
            }
            Some(at) => at,
        };
        let after_split_cr = self.carried.last() == Some(&b'\r');
        let (line_end, next) = match (rest.get(end), rest.get(end + 1)) {
            (Some(b'\n'), _) if after_split_cr && end == 0 => (0, 1),
            (Some(b'\r'), Some(b'\n')) if !after_split_cr => (end, end + 2),
            _ => return self.broken_line(),
        };
        let line = rest.get(..line_end).unwrap_or_default();
        let (here, after) = (next, rest.get(next..).unwrap_or_default());
        if self.carried.is_empty() {
            self.complete(line, here)?;
        } else {
            let mut whole = std::mem::take(&mut self.carried);
            if after_split_cr {
                whole.pop();
            }
            whole.extend_from_slice(line);
            self.complete(&whole, here)?;
        }
        Ok(after)
    }

    /// Keeps the part of a line that is there until the rest comes.
    fn carry<'a>(&mut self, rest: &'a [u8], upto: usize) -> Result<&'a [u8], Violation> {
        if self.carried.last() == Some(&b'\r') {
            return self.broken_line();
        }
        self.count(upto)?;
        if self.state != State::Lost {
            self.carried.extend_from_slice(rest.get(..upto).unwrap_or_default());
        }
        Ok(rest.get(upto..).unwrap_or_default())
    }

    /// Bounds heads, and what surrounds the data of a chunked body.
    fn count(&mut self, bytes: usize) -> Result<(), Violation> {
        if self.state == State::HeadLines {
            self.head.bytes += bytes;
            if self.head.bytes > self.max_head {
                return Err(Violation::HeadTooLarge);
            }
        } else if self.carried.len() + bytes > MAX_CHUNK_OVERHEAD {
            self.lose();
        }
        Ok(())
    }

    /// Bounds what a chunked body has beside its data and the sizes of its chunks.
    fn count_overhead(&mut self, bytes: usize) {
        self.head.chunk_overhead += bytes;
        if self.head.chunk_overhead > MAX_CHUNK_OVERHEAD {
            self.lose();
        }
    }

    /// A CR or LF alone.
    fn broken_line<'a>(&mut self) -> Result<&'a [u8], Violation> {
        if self.state == State::HeadLines {
            return Err(Violation::Ambiguous);
        }
        self.lose();
        Ok(&[])
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.carried = Vec::new();
    }

    fn complete(&mut self, line: &[u8], bytes_here: usize) -> Result<(), Violation> {
        self.count(bytes_here)?;
        match self.state {
            State::HeadLines => self.head_line(line),
            State::ChunkSize => {
                match chunk_size(line) {
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::ChunkData(size),
                    None => self.lose(),
                }
                self.count_overhead(line.len().saturating_sub(MAX_SIZE_DIGITS));
                Ok(())
            }
            State::Trailers if line.is_empty() => {
                self.state = State::Between;
                self.head = Head::default();
                Ok(())
            }
            State::Trailers => {
                if grammar::header_line(line).is_err() {
                    self.lose();
                }
                self.count_overhead(line.len());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn head_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        if line.is_empty() {
            if self.head.lines > 0 {
                self.heads += 1;
                self.state = self.body_after_head();
            }
            return Ok(()); // empty lines before a request line are passed over (RFC 9112 §2.2)
        }
        if self.head.lines > MAX_HEADER_LINES {
            return Err(Violation::HeadTooLarge);
        }
        if self.head.lines == 0 {
            self.head.http_10 = grammar::request_line(line)?;
        } else {
            let (name, value) = grammar::header_line(line)?;
            self.framing_header(name, value.trim_ascii())?;
        }
        self.head.lines += 1;
        Ok(())
    }

    fn framing_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(Violation::Ambiguous)?;
            if self.head.chunked || self.head.length.replace(length).is_some() {
                return Err(Violation::Ambiguous);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let once = !self.head.chunked && self.head.length.is_none();
            if !once || self.head.http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Ambiguous);
            }
            self.head.chunked = true;
        }
        Ok(())
    }

    fn body_after_head(&mut self) -> State {
        let state = match (self.head.chunked, self.head.length) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Sized(length),
            _ => State::Between,
        };
        if state == State::Between {
            self.head = Head::default();
        }
        state
    }

    fn chunk_end<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let expected: &[u8] = if self.carried.is_empty() { b"\r\n" } else { b"\n" };
        let here = expected.len().min(rest.len());
        if rest.get(..here) != expected.get(..here) {
            self.lose();
            return &[];
        }
        if here == expected.len() {
            self.carried.clear();
            self.state = State::ChunkSize;
        } else {
            self.carried.push(b'\r');
        }
        rest.get(here..).unwrap_or_default()
    }
}

/// A length in decimal digits and nothing else.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// More hexadecimal digits than any chunk needs, and few enough for a `u64`.
const MAX_SIZE_DIGITS: usize = 15;

/// The size in a chunk's first line, without its extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if size.is_empty() || size.len() > MAX_SIZE_DIGITS {
        return None;
    }
    size.iter().try_fold(0, |sum, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(sum * 16 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_HEAD: usize = 1024;

    /// Feeds the text in pieces of `size` bytes; the stage at the end, or the violation.
    fn read(text: &str, size: usize) -> Result<Stage, Violation> {
        let mut framing = Framing::new(MAX_HEAD);
        for piece in text.as_bytes().chunks(size) {
            framing.advance(piece).map_err(|(violation, _)| violation)?;
        }
        Ok(framing.stage())
    }

    #[test]
    fn requests_are_framed_or_refused() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(MAX_HEAD));
        let table = [
            ("", Ok(Stage::Between)),
            ("G", Ok(Stage::Head)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Ok(Stage::Head)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Stage::Between)),
            ("\r\nGET / HTTP/1.1\r\n\r\n", Ok(Stage::Between)),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", Ok(Stage::Body)),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Ok(Stage::Between)),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Ok(Stage::Between)),
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\naGET /", Ok(Stage::Head)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Ok(Stage::Body)),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
                Ok(Stage::Between),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\nT: v\r\n\r\nG",
                Ok(Stage::Head),
            ),
            // lengths that contradict each other
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(Violation::Ambiguous),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                Err(Violation::Ambiguous),
            ),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Err(Violation::Ambiguous)),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Violation::Ambiguous)),
            // line ends
            ("GET / HTTP/1.1\nHost: a\n\n", Err(Violation::Ambiguous)),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(Violation::Ambiguous)),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Err(Violation::Ambiguous)),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Err(Violation::Ambiguous)),
            // size
            (many.as_str(), Err(Violation::HeadTooLarge)),
            (long.as_str(), Err(Violation::HeadTooLarge)),
            // these end the connection; nothing after them is framed
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Ok(Stage::Body)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n", Ok(Stage::Body)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", Ok(Stage::Body)),
        ];
        for (text, expected) in table {
            for size in [1, 2, 3, 7, 10_000] {
                assert_eq!(read(text, size), expected, "in pieces of {size}: {text:?}");
            }
        }
    }

    #[test]
    fn a_violation_tells_where_the_good_part_ends() {
        let good = b"GET / HTTP/1.1\r\nHost: a\r\n";
        let mut bytes = good.to_vec();
        bytes.extend_from_slice(b"Content-Length: x\r\n\r\n");
        let refused = Framing::new(MAX_HEAD).advance(&bytes);
        assert_eq!(refused, Err((Violation::Ambiguous, good.len())));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in proptest::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b':'), Just(b' '), any::<u8>()], 0..200), cut in 0..200_usize) {
            let cut = cut.min(bytes.len());
            let mut whole = Framing::new(64);
            let one = whole.advance(&bytes).map_err(|(violation, _)| violation);
            let mut pieces = Framing::new(64);
            let two = pieces.advance(&bytes[..cut]).and_then(|()| pieces.advance(&bytes[cut..]))
                .map_err(|(violation, _)| violation);
            prop_assert_eq!(one, two);
            if one.is_ok() {
                prop_assert_eq!(whole.stage(), pieces.stage());
            }
        }
    }
}
