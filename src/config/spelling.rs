//! Which name was probably meant.

/// The one of `candidates` that `name` was most likely meant to be, if any is close.
pub(crate) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let far = (name.chars().count() + 1) / 3;
    candidates
        .map(|candidate| (distance(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= far.clamp(1, 4))
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or replaced to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (taken, letter) in one.chars().enumerate() {
        let mut left = taken + 1;
        let mut next = vec![left];
        for (pair, target) in row.windows(2).zip(other.chars()) {
            if let [diagonal, up] = *pair {
                left = (diagonal + usize::from(letter != target)).min(up + 1).min(left + 1);
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::keys::KEYS, *};

    #[test]
    fn the_nearest_name_is_close() {
        let names = || KEYS.iter().map(|key| key.name.to_owned());
        let table = [
            ("store.timout", Some("store.timeout")),
            ("store.key-prefix", Some("store.key_prefix")),
            ("store.Timeout", Some("store.timeout")),
            ("listne", Some("listen")),
            ("enforced", Some("enforce")),
            ("cookie.enabled", None),
            ("x", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name, names()).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_distance_counts_single_letters() {
        for (one, other, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("abc", "abc", 0),
            ("abc", "axc", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
