//! A map that is bounded in number and in bytes, and forgets what was not asked for lately.

use std::{collections::HashMap, hash::Hash};

/// Two maps: what comes in goes to the young one; when that is half of the bounds, the old one is dropped and it
/// takes its place. What is asked for while it is old becomes young again. No step costs more than one entry does,
/// but for that drop.
#[derive(Debug)]
pub struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Of the young.
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

/// What an entry takes beside itself.
pub trait Weight {
    /// Bytes on the heap, about.
    fn heap_bytes(&self) -> usize;
}

impl<K: Eq + Hash + Copy, V: Weight + Clone> Cache<K, V> {
    /// Holds at most `most` entries, which take at most `most_bytes`, about.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), bytes: 0, most, most_bytes }
    }

    /// What is held for this key.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone());
        Some(value)
    }

    /// Holds this from now on.
    pub fn insert(&mut self, key: K, value: V) {
        let bytes = size_of::<(K, V)>() + value.heap_bytes();
        let full = self.young.len() >= self.most / 2 || self.bytes + bytes > self.most_bytes / 2;
        if full {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.old.remove(&key);
        self.bytes += bytes;
        if let Some(before) = self.young.insert(key, value) {
            self.bytes -= size_of::<(K, V)>() + before.heap_bytes();
        }
    }

    /// Forgets it.
    pub fn remove(&mut self, key: &K) {
        if let Some(value) = self.young.remove(key) {
            self.bytes -= size_of::<(K, V)>() + value.heap_bytes();
        }
        self.old.remove(key);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Heavy(usize);

    impl Weight for Heavy {
        fn heap_bytes(&self) -> usize {
            self.0
        }
    }

    fn held(cache: &Cache<u32, Heavy>) -> usize {
        cache.young.len() + cache.old.len()
    }

    #[test]
    fn no_more_is_held_than_the_bounds_say() {
        let mut many = Cache::new(100, usize::MAX);
        let mut heavy = Cache::new(usize::MAX, 100_000);
        for key in 0..10_000 {
            many.insert(key, Heavy(0));
            heavy.insert(key, Heavy(1_000));
            assert!(held(&many) <= 100 && held(&heavy) <= 100, "{key}");
        }
        assert!(held(&many) >= 50 && held(&heavy) >= 45);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let mut cache = Cache::new(100, usize::MAX);
        cache.insert(0, Heavy(7));
        for key in 1..10_000 {
            cache.insert(key, Heavy(0));
            assert_eq!(cache.get(&0), Some(Heavy(7)), "{key}");
        }
        assert_eq!(cache.get(&1), None);
    }

    #[test]
    fn replaced_removed_and_cleared_bytes_are_not_counted() {
        let mut cache = Cache::new(usize::MAX, 100_000);
        for weight in 0..10_000 {
            cache.insert(1, Heavy(weight % 1_000));
        }
        assert_eq!((held(&cache), cache.bytes), (1, size_of::<(u32, Heavy)>() + 999));
        cache.remove(&1);
        assert_eq!((held(&cache), cache.bytes), (0, 0));
        cache.insert(1, Heavy(1));
        cache.clear();
        assert_eq!((held(&cache), cache.bytes), (0, 0));
    }
}
