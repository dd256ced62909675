//! The address of a PostgreSQL database, as `DATABASE_URL` and libpq have it.
//!
//! What libpq knows and the client does not is read here: how far TLS is to be trusted. Parameters that
//! are about neither the connection nor TLS, such as a pool's size, are passed over: the variable is
//! GoTrue's, and its driver takes them.

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use form_urlencoded::{Serializer, parse as pairs};
use tokio_postgres::config::SslMode;

/// How long connecting may take where the address does not say.
const CONNECT: Duration = Duration::from_secs(10);

/// Parameters that the client takes.
const TAKEN: [&str; 14] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "target_session_attrs",
    "channel_binding",
    "keepalives",
    "keepalives_idle",
    "tcp_user_timeout",
];

/// A database and how to come to it. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Address {
    /// Host, user, database.
    pub connection: tokio_postgres::Config,
    /// `sslmode`
    pub trust: Trust,
    /// `sslrootcert`: trusted instead of the system's certificates.
    pub root_cert: Option<PathBuf>,
}

/// Whom the client trusts when the server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Anybody: `disable`, `allow`, `prefer`, and `require` without `sslrootcert`.
    Anybody,
    /// A certificate of a trusted authority: `verify-ca`, and `require` with `sslrootcert`.
    Authority,
    /// Such a certificate for that host: `verify-full`.
    Host,
}

impl Address {
    /// Reads it. `None` for anything but a `postgres://` address with a host.
    pub fn parse(text: &str) -> Option<Self> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return None;
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let given = |name| pairs(query.as_bytes()).filter(move |it| it.0 == name).last().map(|it| it.1);
        let root_cert = given("sslrootcert").filter(|path| !path.is_empty());
        let root_cert = root_cert.map(|path| PathBuf::from(path.into_owned()));
        let (mode, trust) = match given("sslmode").as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anybody),
            // the client has no `allow`, which would try without TLS first
            None | Some("allow" | "prefer") => (SslMode::Prefer, Trust::Anybody),
            Some("require") if root_cert.is_none() => (SslMode::Require, Trust::Anybody),
            Some("require" | "verify-ca") => (SslMode::Require, Trust::Authority),
            Some("verify-full") => (SslMode::Require, Trust::Host),
            Some(_) => return None,
        };
        let taken = pairs(query.as_bytes()).filter(|(name, _)| TAKEN.contains(&name.as_ref()));
        // the client reads percent signs, and takes a plus sign for itself
        let taken = Serializer::new(String::new()).extend_pairs(taken).finish().replace('+', "%20");
        let mut connection = tokio_postgres::Config::from_str(&format!("{base}?{taken}")).ok()?;
        connection.ssl_mode(mode);
        if connection.get_connect_timeout().is_none() {
            connection.connect_timeout(CONNECT);
        }
        if connection.get_application_name().is_none() {
            connection.application_name("gotrue-sidecar audit");
        }
        let somewhere = !connection.get_hosts().is_empty() || !connection.get_hostaddrs().is_empty();
        somewhere.then_some(Self { connection, trust, root_cert })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn gotrues_own_address_is_taken_whatever_else_it_carries() {
        let text = "postgres://user:p%40ss%2Fword@db.local:6432/postgres\
                    ?search_path=auth&pool_max_conns=5&application_name=one+two&sslmode=disable";
        let address = Address::parse(text).unwrap();
        let connection = &address.connection;
        assert_eq!(connection.get_password(), Some(&b"p@ss/word"[..]));
        assert_eq!(connection.get_hosts(), [Host::Tcp("db.local".into())]);
        assert_eq!((connection.get_dbname(), connection.get_ports()), (Some("postgres"), &[6432][..]));
        assert_eq!(connection.get_application_name(), Some("one two"));
        assert_eq!(connection.get_ssl_mode(), SslMode::Disable);
        assert!(!format!("{address:?}").contains("p@ss"));
    }

    #[test]
    fn a_socket_is_a_host() {
        let address = Address::parse("postgresql://user@/auth?host=/run/postgresql").unwrap();
        assert_eq!(address.connection.get_hosts(), [Host::Unix("/run/postgresql".into())]);
    }

    #[test]
    fn trust_is_what_libpq_makes_of_sslmode() {
        let table = [
            ("", SslMode::Prefer, Trust::Anybody),
            ("?sslmode=allow", SslMode::Prefer, Trust::Anybody),
            ("?sslmode=prefer", SslMode::Prefer, Trust::Anybody),
            ("?sslmode=require", SslMode::Require, Trust::Anybody),
            ("?sslmode=require&sslrootcert=/ca.pem", SslMode::Require, Trust::Authority),
            ("?sslmode=verify-ca", SslMode::Require, Trust::Authority),
            ("?sslmode=verify-full&sslrootcert=/ca.pem", SslMode::Require, Trust::Host),
        ];
        for (query, mode, trust) in table {
            let address = Address::parse(&format!("postgres://db/auth{query}")).unwrap();
            assert_eq!((address.connection.get_ssl_mode(), address.trust), (mode, trust), "{query}");
            let root = query.contains("/ca.pem").then_some(Path::new("/ca.pem"));
            assert_eq!(address.root_cert.as_deref(), root, "{query}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "mysql://db/auth",
            "host=db user=me",
            "postgres:///auth",
            "postgres://db/auth?sslmode=verify",
            "postgres://db:port/auth",
        ] {
            assert!(Address::parse(text).is_none(), "{text}");
        }
    }
}
