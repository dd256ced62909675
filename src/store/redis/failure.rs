//! What went wrong, in our words. What the server said beyond its code stays out of it.

use std::{error::Error as _, io, sync::Arc};

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::{Code, Error};

/// How Redis and Valkey say that it is the user or what the user may do, where the code that says so got lost: for a
/// command in a script, and for one that the client library sends by itself.
const NOT_ALLOWED: [&str; 7] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "Authentication required",
    "has no permissions",
    "The user executing the script can't",
    "ACL failure in script",
];

/// How Redis says that it takes no further connection (`maxclients`); it closes this one.
const NO_ROOM: &str = "max number of clients";

/// Whether Redis itself said no, as one does that is too old or that does not allow something: that is not over
/// soon. A password that it does not take is another soon.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    let passes = ["LOADING", "MASTERDOWN", "BUSY", "NOAUTH", "WRONGPASS"];
    let crowded = error.detail().is_some_and(|text| text.contains(NO_ROOM));
    !crowded && error.code().is_some_and(|code| !passes.contains(&code))
}

/// The error in our words.
pub(super) fn error_of(error: &RedisError) -> Error {
    if error.is_timeout() {
        return Error::Timeout;
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => Error::Auth,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Error::ReadOnly,
        ErrorKind::Server(ServerErrorKind::BusyLoading) => Error::Loading,
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => Error::Moved,
        ErrorKind::Server(
            ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain | ServerErrorKind::MasterDown,
        ) => Error::ClusterDown,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Error::Protocol,
        ErrorKind::Io => io_error(error),
        _ => server_error(error),
    }
}

/// Redis before 7 says which error a command in a script met only in the text of its own.
fn server_error(error: &RedisError) -> Error {
    let said = |word| error.code() == Some(word) || error.detail().is_some_and(|text| text.contains(word));
    match () {
        () if said("OOM") => Error::OutOfMemory,
        () if said("READONLY") => Error::ReadOnly,
        () if said("WRONGTYPE") => Error::Protocol,
        () if said("non local key") => Error::Moved, // a script in a slot that is just moving
        () if said(NO_ROOM) => Error::Refused(io::ErrorKind::ConnectionRefused),
        () if NOT_ALLOWED.into_iter().any(said) => Error::Auth,
        () => Error::Other(Code::new(error.code().unwrap_or_default())),
    }
}

fn io_error(error: &RedisError) -> Error {
    // The client shares its errors, so the source is the `Arc`, not what is in it.
    let shared = error.source().and_then(|source| source.downcast_ref::<Shared>());
    let Some(io) = shared.and_then(|shared| shared.downcast_ref::<io::Error>()) else {
        return Error::Refused(io::ErrorKind::Other);
    };
    let tls = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => Error::Tls(tls.clone()),
        None => Error::Refused(io.kind()),
    }
}

type Shared = Arc<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server says it.
    fn error(text: &str) -> RedisError {
        match ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap() {
            ::redis::Value::ServerError(error) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_server_says_has_its_cause() {
        let table = [
            ("NOAUTH Authentication required.", "auth"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "auth"),
            ("NOPERM this user has no permissions to run the 'role' command", "auth"),
            (
                "ERR The user executing the script can't run this command or subcommand script: c0, on @user_script:1.",
                "auth",
            ),
            ("ERR The user executing the script can't access at least one of the keys mentioned", "auth"),
            ("ERR ACL failure in script: User n has no permissions to run the 'hget' command", "auth"),
            ("ERR ACL failure in script: No permissions to access a key", "auth"),
            ("EXECABORT Transaction discarded because of: NOPERM this user has no permissions", "auth"),
            ("READONLY You can't write against a read only replica.", "read_only"),
            ("LOADING Redis is loading the dataset in memory", "loading"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory"),
            ("ERR Error running script: @user_script:7: -OOM command not allowed", "out_of_memory"),
            ("MOVED 3999 127.0.0.1:6381", "moved"),
            ("ASK 3999 127.0.0.1:6381", "moved"),
            ("ERR Script attempted to access a non local key in a cluster node", "moved"),
            ("CLUSTERDOWN Hash slot not served", "cluster_down"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "cluster_down"),
            ("MASTERDOWN Link with MASTER is down", "cluster_down"),
            ("WRONGTYPE Operation against a key", "protocol"),
            ("NOREPLICAS Not enough good replicas to write.", "other"),
            ("MISCONF Redis is configured to save RDB snapshots", "other"),
            ("ERR max number of clients reached", "refused"),
            ("ERR unknown command", "other"),
        ];
        for (text, cause) in table {
            assert_eq!(error_of(&error(text)).cause(), cause, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_what_is_not_over_soon() {
        let table = [
            ("ERR unknown subcommand 'TRACKING'", true),
            ("NOPERM this user has no permissions to run the 'client|tracking' command", true),
            ("ERR max number of clients reached", false),
            ("NOAUTH HELLO must be called with the client already authenticated", false),
            ("WRONGPASS invalid username-password pair or user is disabled.", false),
            ("LOADING Redis is loading the dataset in memory", false),
        ];
        for (text, expected) in table {
            assert_eq!(is_refusal(&error(text)), expected, "{text}");
        }
        assert!(!is_refusal(&io::Error::from(io::ErrorKind::ConnectionReset).into()));
    }

    #[test]
    fn a_choice_of_database_that_is_refused_has_its_cause() {
        let refused = |text: &str| {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            error_of(&(kind, "Redis server refused to switch database", text.to_owned()).into()).cause()
        };
        assert_eq!(refused("Authentication required."), "auth");
        assert_eq!(refused("this user has no permissions to run the 'select' command"), "auth");
        assert_eq!(refused("DB index is out of range"), "other");
    }
}
