//! A map whose entries end at a time.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use crate::session::Seconds;

/// Entries by key, and their ends in order, so that the ended ones are found without looking at others.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    entries: HashMap<K, (V, Seconds)>,
    ends: BTreeSet<(Seconds, K)>,
}

impl<K: Clone + Eq + Hash + Ord, V> Expiring<K, V> {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { entries: HashMap::new(), ends: BTreeSet::new() }
    }

    /// How many entries it holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry, if it has not been swept.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// When the entry ends, if it has not been swept.
    pub(super) fn end_of(&self, key: &K) -> Option<Seconds> {
        self.entries.get(key).map(|(_, end)| *end)
    }

    /// The entry, to change it in place.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Puts an entry in place; it ends at `end`, or when the one that was there would have ended,
    /// whichever is later.
    pub(super) fn insert(&mut self, key: K, value: V, end: Seconds) {
        let end = match self.entries.get(&key) {
            Some((_, before)) => {
                self.ends.remove(&(*before, key.clone()));
                end.max(*before)
            }
            None => end,
        };
        self.ends.insert((end, key.clone()));
        self.entries.insert(key, (value, end));
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, end) = self.entries.remove(key)?;
        self.ends.remove(&(end, key.clone()));
        Some(value)
    }

    /// Takes out the entry that ends first, if it has ended by `now`.
    pub(super) fn pop_ended(&mut self, now: Seconds) -> Option<(K, V)> {
        let (end, key) = self.ends.first()?.clone();
        let value = (end <= now).then(|| self.remove(&key)).flatten()?;
        Some((key, value))
    }

    /// Takes out the entry that ends first.
    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        self.pop_ended(Seconds::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_leave_in_the_order_of_their_ends() {
        let mut map = Expiring::new();
        map.insert(1, 'a', 30);
        map.insert(2, 'b', 10);
        map.insert(3, 'c', 20);
        map.insert(2, 'B', 25);
        map.insert(1, 'A', 5);
        assert_eq!(map.pop_ended(19), None);
        assert_eq!(map.pop_ended(25), Some((3, 'c')));
        assert_eq!(map.pop_ended(25), Some((2, 'B')));
        assert_eq!(map.pop_ended(25), None);
        assert_eq!(map.get(&1), Some(&'A'));
        assert_eq!(map.pop_first(), Some((1, 'A')));
        assert_eq!((map.len(), map.ends.len()), (0, 0));
    }
}
