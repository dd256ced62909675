//! Tokens that were verified, so that the next look at the same one costs a hash: kept by SHA-256, never in clear,
//! until they expire or the keys change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;

use crate::{
    cache::{Cache, Weight},
    session::Seconds,
};

/// What stands for a token.
pub type Hash = [u8; 32];

/// The hash of a token.
pub fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    hash
}

/// What is kept of a token that was verified.
pub trait Kept {
    /// `exp`: the token is good before that second; `None` for one that always is.
    fn expires_at(&self) -> Option<Seconds>;

    /// Bytes that it takes, about.
    fn bytes(&self) -> usize;
}

impl<V: Kept> Weight for Arc<V> {
    fn heap_bytes(&self) -> usize {
        self.bytes()
    }
}

/// The verified tokens of one worker.
#[derive(Debug)]
pub struct Remembered<V>(Mutex<Held<V>>);

#[derive(Debug)]
struct Held<V> {
    /// Of the keys that verified them.
    generation: u64,
    cache: Cache<Hash, Arc<V>>,
}

impl<V: Kept> Remembered<V> {
    /// At most so many, which take at most so many bytes, about.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self(Mutex::new(Held { generation: 0, cache: Cache::new(most, most_bytes) }))
    }

    /// The token with that hash, if keys of this generation verified it and it has not expired at `now`.
    pub fn get(&self, hash: &Hash, generation: u64, now: Seconds) -> Option<Arc<V>> {
        let mut held = self.lock();
        if held.generation != generation {
            held.cache.clear();
            held.generation = generation;
        }
        let verified = held.cache.get(hash)?;
        if verified.expires_at().is_some_and(|end| now >= end) {
            held.cache.remove(hash);
            return None;
        }
        Some(verified)
    }

    /// Keeps a token that keys of this generation have verified.
    pub fn keep(&self, hash: Hash, generation: u64, verified: &Arc<V>) {
        let mut held = self.lock();
        if held.generation == generation {
            held.cache.insert(hash, Arc::clone(verified));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Token(Option<Seconds>);

    impl Kept for Token {
        fn expires_at(&self) -> Option<Seconds> {
            self.0
        }

        fn bytes(&self) -> usize {
            size_of::<Self>()
        }
    }

    #[test]
    fn a_token_is_kept_until_it_expires_or_the_keys_change() {
        let (tokens, good) = (Remembered::new(2, 1000), Arc::new(Token(Some(100))));
        let hash = hash("a token");
        assert!(tokens.get(&hash, 0, 99).is_none());
        tokens.keep(hash, 0, &good);
        assert!(tokens.get(&hash, 0, 99).is_some());
        assert!(tokens.get(&hash, 0, 100).is_none());
        tokens.keep(hash, 0, &good);
        assert!(tokens.get(&hash, 1, 99).is_none());
        tokens.keep(hash, 0, &good); // by keys that have gone meanwhile
        assert!(tokens.get(&hash, 1, 99).is_none());
    }

    #[test]
    fn a_token_without_an_end_is_kept_until_the_keys_change() {
        let (tokens, endless) = (Remembered::new(2, 1000), Arc::new(Token(None)));
        let hash = hash("a key");
        tokens.keep(hash, 0, &endless);
        assert!(tokens.get(&hash, 0, Seconds::MAX).is_some());
        assert!(tokens.get(&hash, 1, 0).is_none());
    }
}
