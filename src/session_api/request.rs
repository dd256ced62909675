//! What is asked for, read from method, path and query, once it is known who asks.

use http::Method;

use super::{caller::Caller, paging::Paging};
use crate::{
    metrics::Refusal,
    route::{self, Route},
    scope::first_query_value,
    session::{SessionId, UserId, Which},
};

/// What shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A page of a user's sessions.
    List(UserId, Paging),
    /// One session of a user.
    Show(UserId, SessionId),
    /// An end of a user's sessions; [`Which::Live`] for one by its id.
    Revoke(UserId, Which),
    /// Nothing: the route has these methods only.
    NotAllowed(&'static [&'static str]),
}

/// Reads a request. `path` and `query` are raw.
///
/// # Errors
/// What is wrong with it.
pub fn read(
    route: Route,
    method: &Method,
    path: &str,
    query: &str,
    caller: &Caller,
) -> Result<Asked, Refusal> {
    match caller {
        Caller::User { user, session, .. } => own(route, method, path, query, *user, *session),
        Caller::Admin { .. } => anybodys(route, method, path, query),
    }
}

/// The user comes from the token, whatever path and query name.
fn own(
    route: Route,
    method: &Method,
    path: &str,
    query: &str,
    user: UserId,
    session: Option<SessionId>,
) -> Result<Asked, Refusal> {
    match (route, method) {
        (Route::Sessions, &Method::GET) => Ok(Asked::List(user, Paging::read(query)?)),
        (Route::Sessions, &Method::DELETE) => {
            let which = match (first_query_value(query, "scope").as_deref(), session) {
                (Some("global"), _) | (Some("others"), None) => Which::All, // as at GoTrue (contract §6.1)
                (Some("others"), Some(own)) => Which::Others(own),
                _ => return Err(Refusal::UnknownScope),
            };
            Ok(Asked::Revoke(user, which))
        }
        (Route::Sessions, _) => Ok(Asked::NotAllowed(&["DELETE", "GET"])),
        (_, &Method::DELETE) => {
            let asked = route::session_in_path(path).ok_or(Refusal::OddSessionPath)?;
            // that of the token ends even if it is not known here: the token proves it
            let which = if session == Some(asked) { Which::One(asked) } else { Which::Live(asked) };
            Ok(Asked::Revoke(user, which))
        }
        _ => Ok(Asked::NotAllowed(&["DELETE"])),
    }
}

fn anybodys(route: Route, method: &Method, path: &str, query: &str) -> Result<Asked, Refusal> {
    if !matches!(*method, Method::GET | Method::DELETE) {
        return Ok(Asked::NotAllowed(&["DELETE", "GET"]));
    }
    let lists = *method == Method::GET;
    if route == Route::AdminUserSessions {
        let user = route::user_in_path(path).ok_or(Refusal::OddUserPath)?;
        return Ok(if lists {
            Asked::List(user, Paging::read(query)?)
        } else {
            Asked::Revoke(user, Which::All)
        });
    }
    let session = route::session_in_path(path).ok_or(Refusal::OddSessionPath)?;
    let user = first_query_value(query, "user_id").and_then(|id| UserId::parse_as_gotrue(&id));
    let user = user.ok_or(Refusal::NoUserId)?;
    Ok(if lists { Asked::Show(user, session) } else { Asked::Revoke(user, Which::Live(session)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    const USER: &str = "0191d1a0-0000-7000-8000-00000000000a";
    const OWN: &str = "0191d1a0-0000-7000-8000-000000000001";
    const OTHER: &str = "0191d1a0-0000-7000-8000-000000000002";

    fn user() -> UserId {
        UserId::parse(USER).unwrap()
    }

    fn session(id: &str) -> SessionId {
        SessionId::parse(id).unwrap()
    }

    fn asked(caller: &Caller, method: &str, target: &str) -> Result<Asked, Refusal> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let route = Route::of_session_api(path).unwrap();
        read(route, &Method::from_bytes(method.as_bytes()).unwrap(), path, query, caller)
    }

    #[test]
    fn a_user_asks_for_nobody_elses_sessions() {
        let caller = Caller::User { user: user(), session: Some(session(OWN)), token: Secret::new("t") };
        let first = Paging::read("").unwrap();
        let table = [
            ("GET", "/sessions".to_owned(), Ok(Asked::List(user(), first))),
            ("GET", format!("/sessions?user_id={OTHER}"), Ok(Asked::List(user(), first))),
            ("GET", "/sessions?page=x".to_owned(), Err(Refusal::BadPage)),
            ("DELETE", "/sessions?scope=global".to_owned(), Ok(Asked::Revoke(user(), Which::All))),
            ("DELETE", "/sessions?scope=%67lobal".to_owned(), Ok(Asked::Revoke(user(), Which::All))),
            (
                "DELETE",
                "/sessions?scope=others".to_owned(),
                Ok(Asked::Revoke(user(), Which::Others(session(OWN)))),
            ),
            ("DELETE", "/sessions".to_owned(), Err(Refusal::UnknownScope)),
            ("DELETE", "/sessions?scope=".to_owned(), Err(Refusal::UnknownScope)),
            ("DELETE", "/sessions?scope=local".to_owned(), Err(Refusal::UnknownScope)),
            ("DELETE", "/sessions?scope=Global".to_owned(), Err(Refusal::UnknownScope)),
            ("DELETE", "/sessions?scope=x&scope=global".to_owned(), Err(Refusal::UnknownScope)),
            ("DELETE", format!("/sessions/{OTHER}"), Ok(Asked::Revoke(user(), Which::Live(session(OTHER))))),
            ("DELETE", format!("/sessions/{OWN}"), Ok(Asked::Revoke(user(), Which::One(session(OWN))))),
            ("DELETE", "/sessions/all".to_owned(), Err(Refusal::OddSessionPath)),
            ("GET", format!("/sessions/{OWN}"), Ok(Asked::NotAllowed(&["DELETE"]))),
            ("POST", "/sessions".to_owned(), Ok(Asked::NotAllowed(&["DELETE", "GET"]))),
            ("HEAD", "/sessions".to_owned(), Ok(Asked::NotAllowed(&["DELETE", "GET"]))),
        ];
        for (method, target, expected) in table {
            assert_eq!(asked(&caller, method, &target), expected, "{method} {target}");
        }
        let without = Caller::User { user: user(), session: None, token: Secret::new("t") };
        let others = asked(&without, "DELETE", "/sessions?scope=others");
        assert_eq!(others, Ok(Asked::Revoke(user(), Which::All)));
    }

    #[test]
    fn an_admin_names_user_and_session() {
        let admin = Caller::Admin { role: "service_role".to_owned(), user: None, session: None };
        let paging = Paging::read("per_page=7").unwrap();
        let table = [
            ("GET", format!("/admin/users/{USER}/sessions?per_page=7"), Ok(Asked::List(user(), paging))),
            ("DELETE", format!("/admin/users/{USER}/sessions"), Ok(Asked::Revoke(user(), Which::All))),
            ("GET", "/admin/users/me/sessions".to_owned(), Err(Refusal::OddUserPath)),
            ("PUT", format!("/admin/users/{USER}/sessions"), Ok(Asked::NotAllowed(&["DELETE", "GET"]))),
            ("GET", format!("/admin/sessions/{OWN}?user_id={USER}"), Ok(Asked::Show(user(), session(OWN)))),
            (
                "DELETE",
                format!("/admin/sessions/{OWN}/?user_id={USER}"),
                Ok(Asked::Revoke(user(), Which::Live(session(OWN)))),
            ),
            ("GET", format!("/admin/sessions/{OWN}"), Err(Refusal::NoUserId)),
            ("GET", format!("/admin/sessions/{OWN}?user_id=me"), Err(Refusal::NoUserId)),
            ("DELETE", format!("/admin/sessions/one?user_id={USER}"), Err(Refusal::OddSessionPath)),
        ];
        for (method, target, expected) in table {
            assert_eq!(asked(&admin, method, &target), expected, "{method} {target}");
        }
    }
}
