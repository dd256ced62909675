//! What a configuration key is, and the names that follow from its own.

use super::{
    keys::{self, VARIABLE_PREFIX},
    kind::Kind,
};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted, as nested in YAML: `store.key_prefix`.
    pub name: &'static str,
    /// The notation of its value.
    pub kind: Kind,
    /// What holds when it is not given.
    pub default: Default,
    /// What it is for: one or two sentences.
    pub help: &'static str,
    /// Its value is never shown.
    pub secret: bool,
    /// The file it names is read again when it changes.
    pub reloaded: bool,
    /// Set to something else than its default, it asks for a store.
    pub needs_store: bool,
    /// GoTrue's own variables for it: the first that is set counts when neither the key nor its `_file` is
    /// given.
    pub gotrue: &'static [&'static str],
    /// Who uses it: it stops nobody else.
    pub used_by: UsedBy,
}

/// Who uses a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedBy {
    /// `serve`; the other commands take from it what they need.
    Serve,
    /// Only `audit`.
    Audit,
}

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value.
    Value(&'static str),
    /// Nothing.
    Unset {
        /// What that means.
        means: &'static str,
        /// A value that it could have.
        example: &'static str,
    },
}

impl Key {
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        let default = Default::Value(default);
        Self {
            name,
            kind,
            default,
            help,
            secret: false,
            reloaded: false,
            needs_store: false,
            gotrue: &[],
            used_by: UsedBy::Serve,
        }
    }

    pub(super) const fn unset(
        name: &'static str,
        kind: Kind,
        means: &'static str,
        example: &'static str,
        help: &'static str,
    ) -> Self {
        let default = Default::Unset { means, example };
        Self { default, ..Self::new(name, kind, "", help) }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub(super) const fn reloaded(self) -> Self {
        Self { reloaded: true, ..self }
    }

    pub(super) const fn needs_store(self) -> Self {
        Self { needs_store: true, ..self }
    }

    pub(super) const fn gotrue(self, variables: &'static [&'static str]) -> Self {
        Self { gotrue: variables, ..self }
    }

    pub(super) const fn for_audit(self) -> Self {
        Self { used_by: UsedBy::Audit, ..self }
    }

    /// `store.key_prefix` → `store-key-prefix`, without the dashes in front.
    pub fn long(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// `store.key_prefix` → `--store-key-prefix`
    pub fn flag(&self) -> String {
        format!("--{}", self.long())
    }

    /// `store.key_prefix` → `SIDECAR_STORE_KEY_PREFIX`
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// `store.key_prefix` → `store` and `key_prefix`; `listen` → none and `listen`.
    pub fn section(&self) -> (Option<&'static str>, &'static str) {
        match self.name.split_once('.') {
            Some((section, rest)) => (Some(section), rest),
            None => (None, self.name),
        }
    }

    /// `jwt.secret` → `jwt.secret_file`: the key that names a file with the value of this one.
    pub fn twin(&self) -> Option<&'static Self> {
        keys::KEYS.iter().find(|other| other.name.strip_suffix("_file") == Some(self.name))
    }

    /// `jwt.secret_file` → `jwt.secret`: the key whose value is in the file that this one names.
    pub fn twin_of(&self) -> Option<&'static Self> {
        self.name.strip_suffix("_file").and_then(keys::key)
    }
}
