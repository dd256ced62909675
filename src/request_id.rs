//! Ids for requests that bring none (`X-Request-Id`), for GoTrue and for the log.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use http::HeaderValue;

/// Random part, `-`, counter: all hexadecimal.
const LONGEST: usize = PREFIX + 1 + 16;
const PREFIX: usize = 16;

/// Makes ids that no other request has: a prefix that is random for every process, and a counter.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; PREFIX],
    made: AtomicU64,
}

impl RequestIds {
    /// Draws the prefix.
    pub fn new() -> Self {
        // The ids only have to differ between processes, no secret hangs on them: the standard library's
        // seed does, and spares the start what a generator of keys needs to gather entropy (15 ms).
        let random = RandomState::new().build_hasher().finish();
        let mut prefix = [0; PREFIX];
        hexadecimal(random, &mut prefix);
        Self { prefix, made: AtomicU64::new(0) }
    }

    /// The next id.
    pub fn next(&self) -> HeaderValue {
        let count = self.made.fetch_add(1, Ordering::Relaxed);
        let mut id = [b'-'; LONGEST];
        let digits = (64 - count.leading_zeros()).div_ceil(4).max(1) as usize;
        let (prefix, counter) = id.split_at_mut(PREFIX);
        prefix.copy_from_slice(&self.prefix);
        let counter = counter.get_mut(1..=digits).unwrap_or_default();
        hexadecimal(count, counter);
        let id = id.get(..=PREFIX + digits).unwrap_or_default();
        // hexadecimal digits always make a value; a number is an id too
        HeaderValue::from_bytes(id).unwrap_or_else(|_| HeaderValue::from(count))
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

/// As much of a request's id as is printed: 128 bytes; one from outside may be of any length.
pub(crate) fn shown(id: &[u8]) -> &[u8] {
    id.get(..128).unwrap_or(id)
}

/// The lowest digits, as many as there is room for.
fn hexadecimal(value: u64, out: &mut [u8]) {
    let mut rest = value;
    for digit in out.iter_mut().rev() {
        *digit = match (rest & 0xf) as u8 {
            low @ 0..=9 => b'0' + low,
            low => b'a' + low - 10,
        };
        rest >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc, thread};

    use super::*;

    #[test]
    fn no_two_requests_have_the_same_id() {
        let ids = Arc::new(RequestIds::new());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ids = Arc::clone(&ids);
                thread::spawn(move || (0..5_000).map(|_| ids.next()).collect::<Vec<_>>())
            })
            .collect();
        let made: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let different: HashSet<_> = made.iter().collect();
        assert_eq!(different.len(), 20_000);
    }

    #[test]
    fn ids_of_one_process_share_a_prefix_and_count() {
        let ids = RequestIds::new();
        let made: Vec<_> = (0..18).map(|_| ids.next().to_str().unwrap().to_owned()).collect();
        let (prefix, first) = made[0].split_once('-').unwrap();
        assert_eq!((prefix.len(), first), (16, "0"));
        assert_eq!(made[17], format!("{prefix}-11"));
        assert_ne!(RequestIds::new().prefix, ids.prefix);
    }

    #[test]
    fn the_longest_id_fits() {
        let ids = RequestIds::new();
        ids.made.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(ids.next().len(), LONGEST);
        assert!(ids.next().to_str().unwrap().ends_with("-0"));
    }
}
