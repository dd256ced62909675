//! What can be wrong with a store, and what that means to whoever asked it.

use std::{io, path::PathBuf};

use crate::{config::FileError, metrics::StoreResult};

/// Why the store did not do what it was asked. Holds nothing that the store said but one short code.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// No answer in time. A change may have been made, or may yet be.
    #[error("the store did not answer in time")]
    Timeout,
    /// There is no connection: refused, reset, no such host.
    #[error("the store cannot be reached ({0})")]
    Refused(io::ErrorKind),
    /// It does not know this user or password, or does not allow what we do.
    #[error("the store refuses our user or password, or what the user may do")]
    Auth,
    /// It is a replica.
    #[error("the store is read-only")]
    ReadOnly,
    /// It is full and may not evict.
    #[error("the store is out of memory")]
    OutOfMemory,
    /// It is reading its data.
    #[error("the store is still loading its data")]
    Loading,
    /// What it holds or answers is not what this program writes.
    #[error("the store holds or answers something unexpected")]
    Protocol,
    /// The embedded store holds `store.memory_max_sessions` live sessions.
    #[error("the embedded store is full: store.memory_max_sessions live sessions")]
    Full,
    /// Its certificate does not verify, or it does not speak TLS.
    #[error("TLS with the store failed: {0}")]
    Tls(rustls::Error),
    /// Another server has the key, or is about to: part of a Cluster is moving, or `store.url` does not say that
    /// it is one.
    #[error(
        "the store says that another server has the key: it is being moved, or store.url is to begin with \
             redis+cluster://"
    )]
    Moved,
    /// Part of the Cluster has no master, or is in between.
    #[error("the Cluster does not serve this part of its slots")]
    ClusterDown,
    /// The change is made, but on fewer replicas than `store.wait_replicas` in time.
    #[error("fewer replicas than store.wait_replicas have the change")]
    Replicas,
    /// Another error of the server's, by its code.
    #[error("the store answered with the error {0}")]
    Other(Code),
    /// Nobody asked it: it has failed several times in a row.
    #[error("the store was not asked: it has just failed several times in a row")]
    Skipped,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The store does no work, for whomever: the breaker counts it.
    Store,
    /// It works, and has no room for what would grow it; endings and questions go through, at once.
    Room,
    /// It works; something is wrong with what it was asked, or with what it holds of that.
    Change,
    /// Nothing new: it was not asked.
    Nothing,
}

impl Error {
    /// What it is about.
    pub fn about(&self) -> About {
        match self {
            Self::Timeout
            | Self::Refused(_)
            | Self::Auth
            | Self::ReadOnly
            | Self::Loading
            | Self::Tls(_)
            | Self::Moved
            | Self::ClusterDown
            | Self::Other(_) => About::Store,
            Self::OutOfMemory => About::Room,
            Self::Protocol | Self::Full | Self::Replicas => About::Change,
            Self::Skipped => About::Nothing,
        }
    }

    /// Whether a change that met it is worth another try later. Every change may be made twice, so it does not
    /// matter whether this one was.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Refused(_)
            | Self::Auth
            | Self::ReadOnly
            | Self::OutOfMemory
            | Self::Loading
            | Self::Tls(_)
            | Self::Moved
            | Self::ClusterDown
            | Self::Other(_)
            | Self::Skipped
            | Self::Protocol => true, // nobody can tell yet whether that was the store or this one change
            Self::Full | Self::Replicas => false, // the latter is made
        }
    }

    /// What metrics call it.
    pub fn result(&self) -> StoreResult {
        match self {
            Self::Timeout => StoreResult::Timeout,
            Self::Refused(_) => StoreResult::Refused,
            Self::Auth => StoreResult::Auth,
            Self::ReadOnly => StoreResult::ReadOnly,
            Self::OutOfMemory => StoreResult::OutOfMemory,
            Self::Loading => StoreResult::Loading,
            Self::Protocol => StoreResult::Protocol,
            Self::Full => StoreResult::Full,
            Self::Tls(_) => StoreResult::Tls,
            Self::Moved => StoreResult::Moved,
            Self::ClusterDown => StoreResult::ClusterDown,
            Self::Replicas => StoreResult::Replicas,
            Self::Other(_) => StoreResult::Other,
            Self::Skipped => StoreResult::Skipped,
        }
    }

    /// The word for it in logs.
    pub fn cause(&self) -> &'static str {
        self.result().as_str()
    }
}

/// The first word of a server's error, such as `MISCONF`: at most 24 capital letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code(Box<str>);

impl Code {
    /// Takes the word if it is one, else `unknown`, so that no data gets into a log this way.
    pub fn new(word: &str) -> Self {
        let fits = (1..=24).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
        Self(if fits { word } else { "unknown" }.into())
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a store cannot be set up. Says nothing of an address but that it is wrong: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an address of a store.
    #[error(
        "store.url: expected redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster:// with what \
         belongs to it, and nothing else"
    )]
    Url,
    /// A database of a Cluster.
    #[error("store.url: expected no database: a Cluster has only one")]
    ClusterDatabase,
    /// What was one server is a Cluster now, or the like.
    #[error("store.url: expected the same shape of Redis as at the start; another one needs a restart")]
    Shape,
    /// A file that holds the address or the password.
    #[error("{key}: {source}")]
    Secret {
        /// The key that names it.
        key: &'static str,
        /// Why.
        source: FileError,
    },
    /// A file with certificates or a key cannot be read.
    #[error("{key}: expected a readable file at {}: {source}", path.display())]
    PemUnreadable {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold them.
    #[error("{key}: expected {expected} in {}", path.display())]
    PemContent {
        /// The key that names it.
        key: &'static str,
        /// What should be in it.
        expected: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// They hold something that cannot be used for TLS.
    #[error(
        "store.ca_file, store.client_cert_file, store.client_key_file: expected certificates that can be used"
    )]
    Certificates,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_result_of_its_own() {
        let errors = [
            Error::Timeout,
            Error::Refused(io::ErrorKind::ConnectionRefused),
            Error::Auth,
            Error::ReadOnly,
            Error::OutOfMemory,
            Error::Loading,
            Error::Protocol,
            Error::Full,
            Error::Tls(rustls::Error::DecryptError),
            Error::Moved,
            Error::ClusterDown,
            Error::Replicas,
            Error::Skipped,
            Error::Other(Code::new("MISCONF")),
        ];
        let results = errors.iter().map(Error::result);
        assert!(std::iter::once(StoreResult::Ok).chain(results).eq(StoreResult::ALL));
    }

    #[test]
    fn a_code_is_a_word_and_no_data() {
        assert_eq!(Code::new("CLUSTERDOWN").to_string(), "CLUSTERDOWN");
        for data in ["", "secret-token", "eyJhbGciOi", "A B", &"A".repeat(25)] {
            assert_eq!(Code::new(data).to_string(), "unknown");
        }
    }
}
