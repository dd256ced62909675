//! The one table of configuration keys. Flags, environment variables, the keys that YAML may have,
//! `sidecar.yaml`, the README's table and `--print-config` are all derived from it.

mod front;
mod process;
mod sessions;
mod store;

use std::sync::LazyLock;

pub use super::key::{Default, Key, UsedBy};

/// In front of every variable of ours.
pub const VARIABLE_PREFIX: &str = "SIDECAR_";

/// The flag that names the file. No key: the file cannot name itself.
pub const CONFIG_FLAG: &str = "--config";

/// The variable that names the file.
pub const CONFIG_VARIABLE: &str = "SIDECAR_CONFIG";

/// The key of that name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether some keys lie in the section of that name.
pub fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section().0 == Some(name))
}

/// Every key, section by section, in the order in which they are documented.
pub static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| [front::KEYS, store::KEYS, sessions::KEYS, process::KEYS].concat());

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::kind::Kind, *};

    #[test]
    fn names_are_unique_lower_case_and_at_most_one_section_deep() {
        let mut seen = HashSet::new();
        for key in KEYS.iter() {
            assert!(seen.insert(key.name), "{} twice", key.name);
            assert!(
                key.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.'),
                "{}",
                key.name
            );
            assert!(key.name.matches('.').count() <= 1, "{}", key.name);
            assert!(!is_section(key.name), "{} is a section too", key.name);
        }
    }

    #[test]
    fn flags_and_variables_are_unique() {
        let mut seen = HashSet::from([CONFIG_FLAG.to_owned(), CONFIG_VARIABLE.to_owned()]);
        for reserved in ["--help", "--version", "--print-config"] {
            seen.insert(reserved.to_owned());
        }
        for key in KEYS.iter() {
            assert!(seen.insert(key.flag()), "{}", key.flag());
            assert!(seen.insert(key.variable()), "{}", key.variable());
        }
    }

    #[test]
    fn a_section_stands_together() {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.section().0).collect();
        sections.dedup();
        let distinct: HashSet<_> = sections.iter().collect();
        assert_eq!(sections.len(), distinct.len(), "{sections:?}");
    }

    #[test]
    fn defaults_and_examples_are_admitted() {
        for key in KEYS.iter() {
            match key.default {
                Default::Value(text) => assert!(key.kind.admits(text), "{}", key.name),
                Default::Unset { means, example } => {
                    assert!(key.kind.admits(example), "{}", key.name);
                    assert!(!means.is_empty(), "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn every_secret_can_come_from_a_file() {
        for key in KEYS.iter().filter(|key| key.secret) {
            let twin = key.twin().unwrap_or_else(|| panic!("{} has no file", key.name));
            assert_eq!(twin.kind, Kind::File);
            assert_eq!(twin.twin_of().map(|key| key.name), Some(key.name));
        }
    }
}
