//! The forms of `store.url`: which shape of Redis it is, and where. Pure: nothing is resolved or read.

use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

/// Where Sentinels listen when nobody says otherwise.
const SENTINEL_PORT: u16 = 26_379;

/// What a `store.url` says.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// `memory:`
    Memory,
    /// One of the Redis forms.
    Redis(Box<RedisUrl>),
}

/// Where a Redis is, and as whom to log in there.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// What is there.
    pub shape: Shape,
    /// The scheme begins with `rediss`.
    pub tls: bool,
    /// The server itself, the Sentinels, or some nodes of the Cluster; at least one.
    pub addresses: Vec<Address>,
    /// Database, user, password and version of the protocol.
    pub login: RedisConnectionInfo,
}

/// A shape of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One server.
    Single,
    /// The master of that name, wherever the Sentinels say it is.
    Sentinel {
        /// As the Sentinels call it.
        master: String,
    },
    /// Several masters, each with a part of the slots.
    Cluster,
}

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// By TCP.
    Tcp {
        /// A name or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// By unix socket.
    Unix(PathBuf),
}

impl StoreUrl {
    /// Reads one. A fragment is refused: it is the tail of a password with an unescaped `#`, or asks for TLS
    /// without verification.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let several = |single: &str, shape: fn(&str) -> Option<(Shape, &str)>| {
            several(single, rest.strip_prefix("//")?, shape)
        };
        let url = match scheme {
            "memory" => return rest.is_empty().then_some(Self::Memory),
            "redis" | "rediss" | "redis+unix" => single(text),
            "redis+sentinel" => several("redis", sentinel),
            "rediss+sentinel" => several("rediss", sentinel),
            "redis+cluster" => several("redis", cluster),
            "rediss+cluster" => several("rediss", cluster),
            _ => None,
        }?;
        Some(Self::Redis(Box::new(url)))
    }

    /// Whether this is the embedded store.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory)
    }
}

impl RedisUrl {
    /// It carries a password.
    pub fn has_password(&self) -> bool {
        self.login.password().is_some_and(|password| !password.is_empty())
    }

    /// It names Sentinels.
    pub fn is_sentinel(&self) -> bool {
        matches!(self.shape, Shape::Sentinel { .. })
    }
}

/// One server, in the form that the Redis client takes.
fn single(text: &str) -> Option<RedisUrl> {
    let url = redis::parse_redis_url(text).filter(|url| url.fragment().is_none())?;
    let parameters: &[&str] = match url.scheme() {
        "redis" | "rediss" => &["protocol"],
        _ => &["db", "user", "pass", "protocol"],
    };
    let known = url.query_pairs().all(|(name, _)| parameters.contains(&name.as_ref()));
    let info = text.into_connection_info().ok()?;
    let (tls, address) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (false, Address::Tcp { host: host.clone(), port: *port }),
        ConnectionAddr::TcpTls { host, port, .. } => (true, Address::Tcp { host: host.clone(), port: *port }),
        ConnectionAddr::Unix(path) => (false, Address::Unix(path.clone())),
        _ => return None,
    };
    // several hosts are for the other forms
    let one = !matches!(&address, Address::Tcp { host, .. } if host.contains(','));
    let login = info.redis_settings().clone();
    (known && one && login.db() >= 0).then(|| RedisUrl {
        shape: Shape::Single,
        tls,
        addresses: vec![address],
        login,
    })
}

/// `[user:password@]host[:port],…[/…][?…]`, each host read as that of a single server.
fn several(scheme: &str, rest: &str, shape: fn(&str) -> Option<(Shape, &str)>) -> Option<RedisUrl> {
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let (shape, database) = shape(path)?;
    let of_host =
        |host: &str| single(&format!("{scheme}://{user}{}/{database}{query}", ported(host, &shape)));
    let each: Option<Vec<RedisUrl>> = hosts.split(',').map(of_host).collect();
    let mut each = each?;
    let addresses = each.iter_mut().flat_map(|url| std::mem::take(&mut url.addresses)).collect();
    let first = each.into_iter().next()?;
    Some(RedisUrl { shape, addresses, ..first })
}

/// A Sentinel's own port where none is given.
fn ported(host: &str, shape: &Shape) -> String {
    let after_brackets = host.rsplit_once(']').map_or(host, |(_, port)| port);
    if *shape == Shape::Cluster || after_brackets.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{SENTINEL_PORT}")
    }
}

/// `<master>[/<database>]`. Redis takes the same letters for the name.
fn sentinel(path: &str) -> Option<(Shape, &str)> {
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    let plain = master.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let shape = Shape::Sentinel { master: master.to_owned() };
    (plain && !master.is_empty()).then_some((shape, database))
}

/// Nothing but perhaps a database, which is for a rule to refuse.
#[expect(clippy::unnecessary_wraps, reason = "it stands where the other form may fail")]
fn cluster(path: &str) -> Option<(Shape, &str)> {
    Some((Shape::Cluster, path))
}

/// A store's address without user, password and parameters, for people to read.
pub fn in_sight(text: &str) -> String {
    match StoreUrl::parse(text) {
        None => "(secret)".to_owned(),
        Some(StoreUrl::Memory) => text.to_owned(),
        Some(StoreUrl::Redis(_)) => {
            let (rest, query) = text.split_once('?').map_or((text, ""), |(rest, _)| (rest, "?(secret)"));
            let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
            match rest.rsplit_once('@') {
                Some((_, rest)) => format!("{scheme}://(secret)@{rest}{query}"),
                None => format!("{scheme}://{rest}{query}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text says, in short: shape, addresses, database, user, what else there is.
    fn read(text: &str) -> String {
        let Some(url) = StoreUrl::parse(text) else { return "none".to_owned() };
        let StoreUrl::Redis(url) = url else { return "memory".to_owned() };
        let addresses: Vec<_> = url.addresses.iter().map(shown).collect();
        let shape = match &url.shape {
            Shape::Single => "single".to_owned(),
            Shape::Sentinel { master } => format!("sentinel {master}"),
            Shape::Cluster => "cluster".to_owned(),
        };
        let tls = if url.tls { " tls" } else { "" };
        let password = if url.has_password() { " password" } else { "" };
        let user = url.login.username().map_or(String::new(), |user| format!(" {user}"));
        format!("{shape}{tls} {} {}{user}{password}", addresses.join(" "), url.login.db())
    }

    fn shown(address: &Address) -> String {
        match address {
            Address::Tcp { host, port } => format!("{host}|{port}"),
            Address::Unix(path) => path.display().to_string(),
        }
    }

    #[test]
    fn every_form_says_what_is_where() {
        let table = [
            ("memory:", "memory"),
            ("redis://127.0.0.1", "single 127.0.0.1|6379 0"),
            ("redis://127.0.0.1:7/3", "single 127.0.0.1|7 3"),
            ("redis://u:p%40ss@redis:6379/0", "single redis|6379 0 u password"),
            ("redis://:p@redis", "single redis|6379 0 password"),
            ("redis://u@redis", "single redis|6379 0 u"),
            ("redis://redis?protocol=resp3", "single redis|6379 0"),
            ("redis://[::1]:7", "single ::1|7 0"),
            ("rediss://redis:6380", "single tls redis|6380 0"),
            ("redis+unix:///run/redis.sock", "single /run/redis.sock 0"),
            ("redis+unix:///run/redis.sock?db=2&user=u&pass=p", "single /run/redis.sock 2 u password"),
            (
                "redis+sentinel://a,b:7,[::1],[::2]:8/mymaster",
                "sentinel mymaster a|26379 b|7 ::1|26379 ::2|8 0",
            ),
            ("redis+sentinel://u:p@a:1,b:2/my.master_1/5", "sentinel my.master_1 a|1 b|2 5 u password"),
            ("rediss+sentinel://a/m?protocol=resp3", "sentinel m tls a|26379 0"),
            ("redis+cluster://a,b:7", "cluster a|6379 b|7 0"),
            ("redis+cluster://u:p@a/", "cluster a|6379 0 u password"),
            ("rediss+cluster://a:1/1", "cluster tls a|1 1"),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in [
            "",
            "memory",
            "memory://",
            "redis",
            "redis://",
            "127.0.0.1:6379",
            "unix:///run/redis.sock",
            "valkey://redis",
            "http://redis",
            "redis://redis/zero",
            "redis://redis/-1",
            "redis://redis?db=1",
            "redis://:pass#word@redis",
            "rediss://redis/#insecure",
            "redis://0.0.0.0",
            "redis://a,b",
            "redis+sentinel:a/m",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a/m/x",
            "redis+sentinel://a/m/1/2",
            "redis+sentinel://a/my master",
            "redis+sentinel:///m",
            "redis+sentinel://a,,b/m",
            "redis+sentinel://a:x/m",
            "redis+sentinel://a/m?db=1",
            "redis+sentinel://:p#w@a/m",
            "redis+cluster://",
            "redis+cluster://a,",
            "redis+cluster://a/x",
            "redis+cluster://a#insecure",
            "redis+cluster+unix:///run/redis.sock",
        ] {
            assert_eq!(read(text), "none", "{text}");
        }
    }

    #[test]
    fn a_store_in_sight_shows_no_credential() {
        let table = [
            ("memory:", "memory:"),
            ("redis://127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
            ("rediss://user:canary@redis:6379/0", "rediss://(secret)@redis:6379/0"),
            ("redis://:canary@redis", "redis://(secret)@redis"),
            ("redis+unix:///run/redis.sock?user=u&pass=canary", "redis+unix:///run/redis.sock?(secret)"),
            ("redis+sentinel://u:canary@a:1,b:2/m/3", "redis+sentinel://(secret)@a:1,b:2/m/3"),
            ("redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
            ("rediss+cluster://:canary@a?protocol=resp3", "rediss+cluster://(secret)@a?(secret)"),
            ("redis+cluster://:canary@a/x", "(secret)"),
            ("canary", "(secret)"),
        ];
        for (text, expected) in table {
            assert_eq!(in_sight(text), expected, "{text}");
        }
    }
}
