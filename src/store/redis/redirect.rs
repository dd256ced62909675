//! What nodes of a Cluster say of where slots are. Pure.

use ::redis::{ServerErrorKind, Value};

use super::{reply, slots::Range};
use crate::{config::store_url::Address, store::Error};

/// What a reply says of its command's slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: it is the reply.
    Reply,
    /// It is there.
    Moved(Address),
    /// It is going there; what was asked for has gone already.
    Ask(Address),
    /// It is between two nodes, and what was asked for is on both.
    Between,
    /// Nobody has it, or too few nodes are there.
    Down,
}

/// How much a node's word on where slots are is worth; the greater the more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct News {
    /// It is in touch with most masters.
    in_touch: bool,
    /// Every failover has the next number.
    epoch: u64,
}

/// What a reply to `CLUSTER INFO` says of that; the least where the user may not ask.
pub(super) fn news(reply: &Value) -> News {
    let fields =
        || reply::text(reply).into_iter().flat_map(str::lines).filter_map(|line| line.split_once(':'));
    let field = |name: &str| fields().find(|(is, _)| *is == name).map(|(_, value)| value);
    News {
        in_touch: field("cluster_state") == Some("ok"),
        epoch: field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
    }
}

/// What a reply of the node at `from` says.
pub(super) fn said(reply: &Value, from: Option<&Address>) -> Said {
    let Value::ServerError(error) = reply else {
        return Said::Reply;
    };
    let to = || address_of(error.details()?.split_ascii_whitespace().nth(1)?, from);
    match error.kind() {
        Some(ServerErrorKind::Moved) => to().map_or(Said::Reply, Said::Moved),
        Some(ServerErrorKind::Ask) => to().map_or(Said::Reply, Said::Ask),
        Some(ServerErrorKind::TryAgain) => Said::Between,
        Some(ServerErrorKind::ClusterDown) => Said::Down,
        // a script met a key that has gone already; what it did before it may do again
        _ if error.details().is_some_and(|text| text.contains("non local key")) => Said::Between,
        _ => Said::Reply,
    }
}

/// The ranges in a reply to `CLUSTER SLOTS` of the node at `from`. Those that do not read as one are left out.
pub(super) fn ranges(reply: &Value, from: Option<&Address>) -> Result<Vec<Range>, Error> {
    reply::sound(reply)?;
    let Value::Array(items) = reply else {
        return Err(Error::Protocol);
    };
    Ok(items.iter().filter_map(|item| range(item, from)).collect())
}

fn range(item: &Value, from: Option<&Address>) -> Option<Range> {
    let Value::Array(parts) = item else {
        return None;
    };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = master.as_slice() else {
        return None;
    };
    let host = reply::text(host).unwrap_or_default();
    Some(Range {
        first: u16::try_from(*first).ok()?,
        last: u16::try_from(*last).ok()?,
        master: address(host, u16::try_from(*port).ok()?, from)?,
    })
}

/// `host:port`
fn address_of(text: &str, from: Option<&Address>) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    address(host, port.parse().ok()?, from)
}

/// Without a host it is where the node is that says so.
pub(super) fn address(host: &str, port: u16, from: Option<&Address>) -> Option<Address> {
    if !["", "?"].contains(&host) {
        return Some(Address::Tcp { host: host.to_owned(), port });
    }
    match from? {
        Address::Tcp { host, .. } => Some(Address::Tcp { host: host.clone(), port }),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn a_reply_says_where_the_slot_is() {
        let table = [
            ("+OK", Said::Reply),
            ("-ERR something", Said::Reply),
            ("-MOVED 3999 127.0.0.1:6381", Said::Moved(at("127.0.0.1", 6381))),
            ("-MOVED 3999 redis-2.local:6381", Said::Moved(at("redis-2.local", 6381))),
            ("-MOVED 3999 ::1:6381", Said::Moved(at("::1", 6381))),
            ("-MOVED 3999 :6381", Said::Moved(at("here", 6381))),
            ("-MOVED 3999 ?:6381", Said::Moved(at("here", 6381))),
            ("-MOVED 3999", Said::Reply),
            ("-MOVED 3999 host:port", Said::Reply),
            ("-ASK 3999 127.0.0.1:6381", Said::Ask(at("127.0.0.1", 6381))),
            ("-TRYAGAIN Multiple keys request during rehashing of slot", Said::Between),
            ("-ERR Script attempted to access a non local key in a cluster node", Said::Between),
            ("-CLUSTERDOWN Hash slot not served", Said::Down),
        ];
        for (text, expected) in table {
            let reply = ::redis::parse_redis_value(format!("{text}\r\n").as_bytes()).unwrap();
            assert_eq!(said(&reply, Some(&at("here", 1))), expected, "{text}");
        }
    }

    #[test]
    fn who_is_in_touch_knows_more_and_then_who_knows_of_the_last_failover() {
        let info = |state: &str, epoch: &str| {
            let text = format!(
                "cluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:{epoch}\r\n"
            );
            news(&Value::BulkString(text.into_bytes()))
        };
        let mut order = [info("ok", "9"), info("fail", "10"), info("ok", "10"), info("ok", "x")];
        order.sort();
        assert_eq!(order, [info("fail", "10"), info("ok", "x"), info("ok", "9"), info("ok", "10")]);
        let refused = ::redis::parse_redis_value(b"-NOPERM no permissions\r\n").unwrap();
        assert_eq!(news(&refused), News::default());
        let format = ::redis::VerbatimFormat::Text;
        let text = "cluster_state:ok\r\ncluster_current_epoch:3\r\n".to_owned();
        assert_eq!(news(&Value::VerbatimString { format, text }), info("ok", "3"));
    }

    #[test]
    fn slots_are_read_as_far_as_they_can_be() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, master| Value::Array(vec![Value::Int(first), Value::Int(last), master]);
        let reply = Value::Array(vec![
            range(0, 5, node(text("a"), 1)),
            range(6, 9, node(Value::Nil, 2)),
            range(10, 11, node(text("a"), 70_000)),
            range(-1, 11, node(text("a"), 1)),
            Value::Int(7),
        ]);
        let expected = [
            Range { first: 0, last: 5, master: at("a", 1) },
            Range { first: 6, last: 9, master: at("here", 2) },
        ];
        assert_eq!(ranges(&reply, Some(&at("here", 1))).unwrap(), expected);
        assert_eq!(ranges(&Value::Okay, None), Err(Error::Protocol));
    }
}
