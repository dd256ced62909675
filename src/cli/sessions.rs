//! The arguments of `sessions`.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, builder::OsStringValueParser};

use crate::{
    config::problem::Problem,
    operator::Order,
    session::{SessionId, UserId},
};

/// What it can be told to do.
const ACTIONS: [&str; 3] = ["list", "show", "revoke"];
const ACTION: &str = "action";
const USER: &str = "user";
const SESSION: &str = "session";

/// Flags that take a value and are no keys.
pub(super) const VALUED: [&str; 2] = ["--user", "--session"];

/// Whether an argument says what to do.
pub(super) fn is_action(text: &str) -> bool {
    ACTIONS.contains(&text)
}

/// As clap sees them.
pub(super) fn arguments() -> [Arg; 3] {
    let value = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("UUID").value_parser(OsStringValueParser::new()).help(help)
    };
    [
        Arg::new(ACTION)
            .value_parser(ACTIONS)
            .required(true)
            .help("What to do; revoke without --session ends all"),
        value(USER, "Whose sessions; always needed, for the store keeps sessions by user"),
        value(SESSION, "One of them"),
    ]
}

/// What they say.
pub(super) fn order(matches: &ArgMatches) -> Result<Order, Problem> {
    let action = matches.get_one::<String>(ACTION).map_or("", String::as_str);
    let user = id(matches, USER, UserId::parse_as_gotrue)?;
    let session = id(matches, SESSION, SessionId::parse_as_gotrue)?;
    match (action, user, session) {
        ("list", Some(user), None) => Ok(Order::List(user)),
        ("show", Some(user), Some(session)) => Ok(Order::Show(user, session)),
        ("revoke", Some(user), session) => Ok(Order::Revoke(user, session)),
        ("list", Some(_), Some(_)) => {
            Err(usage("sessions list: expected no --session; `sessions show` takes one"))
        }
        (_, None, _) => Err(usage(
            "sessions: expected --user; the store keeps sessions by user, so a session's id alone leads to none \
             (access log and audit lines name both)",
        )),
        _ => Err(usage("sessions show: expected --session")),
    }
}

fn id<T>(matches: &ArgMatches, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let Some(text) = matches.get_one::<OsString>(name) else {
        return Ok(None);
    };
    let id = text.to_str().and_then(parse);
    id.map(Some).ok_or_else(|| usage(&format!("--{name}: expected a UUID")))
}

fn usage(text: &str) -> Problem {
    Problem::Usage(text.to_owned())
}
