//! What can be wrong with a configuration. Every problem names the key, the place where it was given and
//! what was expected; none shows a value, which may be a secret or part of one.

use std::{fmt, io, path::PathBuf};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the configuration file, at the line if it could be found.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// From 1.
        line: Option<usize>,
    },
    /// In this environment variable.
    Variable(String),
    /// Nowhere: it is the default.
    Default,
    /// With this flag, which is written with its dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One problem.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The value is not what the key takes.
    #[error("{key} ({place}): expected {expected}")]
    Value {
        /// The key, or the section.
        key: String,
        /// Where.
        place: Place,
        /// As [`Kind::expected`](super::kind::Kind::expected) says it.
        expected: String,
    },
    /// There is no such key.
    #[error("{name} ({place}): unknown key{}", meant(nearest.as_deref()))]
    UnknownKey {
        /// As it was written.
        name: String,
        /// Where.
        place: Place,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// There is no such variable or flag.
    #[error("{place}: expected the name of a key{}", meant(nearest.as_deref()))]
    UnknownPlace {
        /// The variable or flag.
        place: Place,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// An argument that is neither a flag nor a command. It is not shown: it may be the second half of an
    /// unquoted secret.
    #[error("argument {position}: expected a flag or one command of {commands}{}", meant(nearest.as_deref()))]
    Argument {
        /// From 1.
        position: usize,
        /// The commands.
        commands: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// What clap says about arguments that are known by themselves.
    #[error("{0}")]
    Usage(String),
    /// The key stands in the file, or its flag on the command line, a second time.
    #[error("{key} ({place}): given twice; expected once")]
    Twice {
        /// The key.
        key: String,
        /// The second place.
        place: Place,
    },
    /// Two keys that cannot both be as they are.
    #[error("{key} ({place}): {rule}")]
    Contradiction {
        /// The key that was given.
        key: &'static str,
        /// Where.
        place: Place,
        /// What is wrong and what was expected.
        rule: Rule,
    },
    /// A command cannot do without it.
    #[error("{key}: audit needs it; expected {expected}")]
    Needed {
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// The file that a key names cannot be used.
    #[error("{key} ({place}): {source}")]
    NamedFile {
        /// The key.
        key: &'static str,
        /// Where.
        place: Place,
        /// Why.
        source: FileError,
    },
    /// The configuration file cannot be read.
    #[error("{}: expected a readable configuration file: {source}", path.display())]
    ConfigFile {
        /// As it was named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not YAML, or not one mapping.
    #[error("{}: expected YAML: {message}", path.display())]
    Yaml {
        /// As it was named.
        path: PathBuf,
        /// The parser's own words, with line and column.
        message: String,
    },
}

/// What keys have to do with each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A value and the file that holds it.
    #[error("given together with {other} ({place}); expected only one of them")]
    ValueAndFile {
        /// The other key.
        other: &'static str,
        /// Where that is.
        place: Place,
    },
    /// A key that makes no sense alone.
    #[error("expected {other} as well")]
    Without {
        /// The missing key.
        other: &'static str,
    },
    /// A session feature in a stateless proxy.
    #[error("needs a store; expected store.url or store.url_file as well")]
    NeedsStore,
    /// A folder for what is never kept.
    #[error("keeps what waits for the store, and nothing may; expected {other} above 0")]
    NeedsQueue {
        /// The bound that is 0.
        other: &'static str,
    },
    /// Enforcement of what is not looked up.
    #[error("needs lookup; expected lookup to be true")]
    NeedsLookup,
    /// Sessions in use that would look idle.
    #[error(
        "too short: that a session is used is noted once a minute by each worker, so it may look unused for two minutes longer than it was; expected 5m or more"
    )]
    IdleTooShort,
    /// Idle sessions that are forgotten before.
    #[error(
        "longer than session.ttl, after which an unused session is forgotten; expected session.ttl at most"
    )]
    IdleTooLong,
    /// An API for those who prove who they are, and nothing that could prove it.
    #[error("needs a key that verifies tokens; expected jwt.secret or jwt.keys, or jwt.jwks not to be off")]
    NeedsKeys,
    /// Tokens that cannot be signed.
    #[error("needs the symmetric secret to sign with; expected jwt.secret or jwt.secret_file as well")]
    NeedsSecret,
    /// Certificates for a connection without TLS.
    #[error("is for TLS; expected {other} to begin with {scheme}")]
    NeedsTls {
        /// The key with the address.
        other: &'static str,
        /// Its scheme.
        scheme: &'static str,
    },
    /// Two passwords or users for one store.
    #[error("given together with {what} in store.url ({place}); expected only one of them")]
    AlsoInUrl {
        /// A password, a user.
        what: &'static str,
        /// Where the address is.
        place: Place,
    },
    /// Something for Sentinels, and none are named.
    #[error("is for Sentinels; expected store.url to begin with redis+sentinel:// or rediss+sentinel://")]
    NeedsSentinel,
    /// A Cluster with databases.
    #[error("a Cluster has database 0 only; expected no database in it")]
    ClusterDatabase,
    /// Two listeners that cannot be bound both.
    #[error("listen and admin.listen are the same port; expected different ones")]
    SamePort,
    /// Every request would come back.
    #[error("upstream.url is where listen is; expected GoTrue's address")]
    Loop,
}

/// Why a file that a key names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read, or is not text.
    #[error("expected a readable file at {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no folder, or one that cannot be looked into.
    #[error("expected a folder at {}: {source}", path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is empty but for a newline.
    #[error("expected something in the file {}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its content is not what the key takes.
    #[error("expected {expected} in the file {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// As [`Kind::expected`](super::kind::Kind::expected) says it.
        expected: String,
    },
}

/// All problems of one configuration.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => write!(f, "the configuration has a problem:\n  {only}"),
            several => {
                write!(f, "the configuration has {} problems:", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// What works but was probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A secret that can be guessed.
    #[error("{key} ({place}): shorter than 32 bytes, which HS256 asks for (RFC 7518 §3.2)")]
    ShortSecret {
        /// The key.
        key: &'static str,
        /// Where.
        place: Place,
    },
    /// A key for another kind of store.
    #[error("{key} ({place}): has no effect on this kind of store")]
    NoEffect {
        /// The key.
        key: &'static str,
        /// Where.
        place: Place,
    },
    /// A key that says something about another one.
    #[error("{key} ({place}): has no effect without {other}")]
    NoEffectWithout {
        /// The key.
        key: &'static str,
        /// Where.
        place: Place,
        /// The missing key.
        other: &'static str,
    },
    /// Nothing that could verify a token.
    #[error("jwt.jwks is off and neither jwt.secret nor jwt.keys is given: no access token can be verified")]
    NoKeys,
}

/// The end of a message about an unknown name.
fn meant(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!("; did you mean {name}?"))
}
