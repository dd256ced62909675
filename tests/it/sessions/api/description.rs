//! docs/session-api.yaml, held against the running server.

use std::collections::BTreeSet;

use super::*;
use crate::support::openapi::Description;

/// Who sends a request.
#[derive(Clone, Copy)]
enum As<'a> {
    Nobody,
    User(&'a Login),
    Service,
    Token(&'a str),
}

/// A world, and the description that every answer of it is held against.
struct Held<'a> {
    world: World,
    description: &'a Description,
}

impl Held<'_> {
    /// Sends a request in both forms of errors where it is refused.
    async fn ask(&self, who: As<'_>, method: Method, path: &str, filled: &str, status: u16) {
        let token = match who {
            As::Nobody => None,
            As::User(login) => Some(login.access(&self.world.signer)),
            As::Service => Some(self.world.service_key()),
            As::Token(token) => Some(token.to_owned()),
        };
        let authorization = token.map(|token| format!("Bearer {token}"));
        let versions: &[&str] = if status < 400 { &["2024-01-01"] } else { &["2024-01-01", "2023-01-01"] };
        for version in versions {
            let mut headers = vec![("x-supabase-api-version", *version)];
            headers.extend(authorization.as_ref().map(|value| ("authorization", value.as_str())));
            let answer = self.world.send(method.clone(), filled, &headers, "").await;
            assert_eq!(answer.status, status, "{method} {filled}: {answer:?}");
            self.description.check(path, &method, &answer);
        }
    }
}

const OWN: &str = "/sessions";
const ONE: &str = "/sessions/{id}";
const USERS: &str = "/admin/users/{id}/sessions";
const USERS_ONE: &str = "/admin/sessions/{id}";

/// Every path, method, status and property that is described is there, and every answer is described.
#[tokio::test]
async fn the_description_says_what_the_server_does() {
    let description = Description::of("docs/session-api.yaml");
    let logins = sessions(6);
    let mut held = Held { world: World::with_api().await, description: &description };
    held.world.know(&logins.iter().collect::<Vec<_>>()).await;
    let mut change = recorded(&logins[5]);
    let Change::Record { record, .. } = &mut change else { unreachable!() };
    (record.client_id, record.ip) = (Some("client".to_owned()), Some("2001:db8::1".to_owned()));
    (record.user_agent, record.refreshed_at) = (Some("agent".to_owned()), record.refreshed_at + 1);
    held.world.store.apply(&[change], NOW).await.unwrap();
    refusals(&held, &logins).await;
    successes(&held, &logins).await;
    held.world.redis.kill();
    for (_, method, path, filled) in operations(&logins) {
        let who = if path.starts_with("/admin") { As::Service } else { As::User(&logins[0]) };
        held.ask(who, method, path, &filled, 503).await;
    }
    assert_eq!(description.unseen(), [""; 0]);
}

/// A good request to each operation.
fn operations(logins: &[Login]) -> Vec<(u16, Method, &'static str, String)> {
    let (user, at) = (logins[0].user, |n: usize| logins[n].session);
    vec![
        (200, Method::GET, OWN, "/sessions".to_owned()),
        (204, Method::DELETE, ONE, format!("/sessions/{}", at(1))),
        (200, Method::GET, USERS, format!("/admin/users/{user}/sessions")),
        (200, Method::GET, USERS_ONE, format!("/admin/sessions/{}?user_id={user}", at(2))),
        (204, Method::DELETE, USERS_ONE, format!("/admin/sessions/{}?user_id={user}", at(2))),
        (204, Method::DELETE, OWN, "/sessions?scope=others".to_owned()),
        (204, Method::DELETE, USERS, format!("/admin/users/{user}/sessions")),
    ]
}

async fn successes(held: &Held<'_>, logins: &[Login]) {
    for (status, method, path, filled) in operations(logins) {
        let who = if path.starts_with("/admin") { As::Service } else { As::User(&logins[0]) };
        held.ask(who, method, path, &filled, status).await;
    }
}

async fn refusals(held: &Held<'_>, logins: &[Login]) {
    let (user, unknown) = (logins[0].user, Login::new(NOW));
    let mut odd = unknown.claims();
    odd["sub"] = "me".into();
    let odd = held.world.signer.sign(&odd);
    for (_, method, path, filled) in operations(logins) {
        let admin = path.starts_with("/admin");
        held.ask(As::Nobody, method.clone(), path, &filled, 401).await;
        held.ask(if admin { As::User(&logins[0]) } else { As::Service }, method.clone(), path, &filled, 403)
            .await;
        if !admin {
            held.ask(As::Token(&odd), method, path, &filled, 400).await;
        }
    }
    held.ask(As::User(&logins[0]), Method::DELETE, OWN, "/sessions?scope=all", 400).await;
    held.ask(As::Service, Method::GET, USERS, &format!("/admin/users/{user}/sessions?page=x"), 400).await;
    held.ask(As::User(&logins[0]), Method::DELETE, ONE, &format!("/sessions/{}", unknown.session), 404).await;
    held.ask(As::User(&logins[0]), Method::DELETE, ONE, "/sessions/all", 404).await;
    for method in [Method::GET, Method::DELETE] {
        held.ask(As::Service, method.clone(), USERS, "/admin/users/me/sessions", 404).await;
        held.ask(
            As::Service,
            method.clone(),
            USERS_ONE,
            &format!("/admin/sessions/{}", unknown.session),
            400,
        )
        .await;
        let theirs = format!("/admin/sessions/{}?user_id={user}", unknown.session);
        held.ask(As::Service, method, USERS_ONE, &theirs, 404).await;
    }
}

#[test]
fn it_describes_the_routes_that_there_are_and_their_parameters() {
    use gotrue_sidecar::route::Route;
    let description = Description::of("docs/session-api.yaml");
    let routes = Route::ALL.iter().filter(|(route, _)| route.is_of_session_api());
    let there: BTreeSet<(String, String)> = routes
        .flat_map(|(route, methods)| {
            methods.iter().map(|method| (route.template().to_owned(), method.to_ascii_lowercase()))
        })
        .collect();
    let described: BTreeSet<_> = description
        .operations()
        .iter()
        .map(|(path, method)| ((*path).to_owned(), (*method).to_owned()))
        .collect();
    assert_eq!(described, there);
    for (path, method, names) in [
        (OWN, "get", &["page", "per_page"][..]),
        (OWN, "delete", &["scope"]),
        (ONE, "delete", &["id"]),
        (USERS, "get", &["id", "page", "per_page"]),
        (USERS, "delete", &["id"]),
        (USERS_ONE, "get", &["id", "user_id"]),
        (USERS_ONE, "delete", &["id", "user_id"]),
    ] {
        let expected = names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(description.parameters(path, method), expected, "{method} {path}");
    }
}
