//! The session API (contract §7), and the threats to it (docs/security.md names the test of each).

mod callers;
mod description;
mod lists;
mod outage;
mod revocations;

use serde_json::{Value, json};

use super::*;

/// What it is switched on with.
const ON: [&str; 4] = ["--jwt-secret", SECRET, "--session-api-enabled", "true"];

/// GoTrue, which agrees to every logout and knows nothing else.
fn gotrue(seen: &Seen) -> Vec<Step> {
    let logout = seen.request_line().starts_with("POST /logout");
    let elsewhere = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n\r\n404 page not found\n";
    vec![Step::Send(if logout { no_content() } else { elsewhere.to_vec() })]
}

impl World {
    async fn with_api() -> Self {
        Self::with(&ON, gotrue).await
    }

    async fn minting() -> Self {
        Self::with(&[&ON[..], &["--revoke-upstream", "mint"]].concat(), gotrue).await
    }

    async fn get(&self, login: &Login, target: &str) -> Answer {
        self.as_user(login, Method::GET, target, "").await
    }

    async fn delete(&self, login: &Login, target: &str) -> Answer {
        self.as_user(login, Method::DELETE, target, "").await
    }

    /// With a service key.
    async fn as_admin(&self, method: Method, target: &str) -> Answer {
        self.with_token(&self.service_key(), method, target, "").await
    }

    fn service_key(&self) -> String {
        self.signer.sign(&json!({"role": "service_role", "iss": "supabase", "exp": NOW + 99_999}))
    }

    /// The logouts that GoTrue got: scope, and the claims of the token.
    fn logouts(&self) -> Vec<(String, Value)> {
        let seen = self.upstream.seen();
        let logouts = seen.iter().filter(|seen| seen.request_line().starts_with("POST /logout"));
        logouts
            .map(|seen| {
                let scope = seen.request_line().split(['=', ' ']).nth(2).unwrap().to_owned();
                let token = seen.header("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned();
                (scope, jsonwebtoken::dangerous::insecure_decode_claims(&token))
            })
            .map(|(scope, claims)| (scope, claims.unwrap()))
            .collect()
    }

    /// Every command that Redis has carried out of ours so far.
    async fn round_trips(&self) -> usize {
        let mut trips = 0;
        for command in ["lookup", "list", "apply", "resolve"] {
            let series =
                format!("gotrue_sidecar_store_commands_total{{command=\"{command}\",result=\"ok\"}}");
            trips += self.count(&series).await;
        }
        trips
    }
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let sessions = body["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

/// A user's sessions, each a second older than the next.
fn sessions(count: u64) -> Vec<Login> {
    let first = Login::new(NOW - 100);
    let further = (1..count).map(|n| Login { expires: NOW + 3600, ..Login::of(first.user, NOW - 100 + n) });
    [Login { expires: NOW + 3600, ..first.clone() }].into_iter().chain(further).collect()
}

#[tokio::test]
async fn switched_off_its_paths_are_gotrues() {
    let login = Login::new(NOW);
    let world = World::new(gotrue).await;
    world.know(&[&login]).await;
    for (method, target) in [
        (Method::GET, "/sessions".to_owned()),
        (Method::DELETE, format!("/sessions/{}", login.session)),
        (Method::DELETE, format!("/admin/users/{}/sessions", login.user)),
        (Method::GET, format!("/admin/sessions/{}?user_id={}", login.session, login.user)),
    ] {
        let answer = world.as_user(&login, method.clone(), &target, "").await;
        assert_eq!((answer.status.as_u16(), answer.body), (404, "404 page not found\n".into()), "{target}");
        assert_eq!(
            world.upstream.seen().last().unwrap().request_line(),
            format!("{method} {target} HTTP/1.1")
        );
    }
    assert!(world.is_live(&login).await);
}

#[tokio::test]
async fn its_requests_have_their_own_labels_and_never_reach_gotrue() {
    let logins = sessions(2);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1]]).await;
    world.get(&logins[0], "/sessions").await;
    world.get(&logins[0], "/sessions/").await;
    world.delete(&logins[0], &format!("/sessions/{}", logins[1].session)).await;
    world.as_admin(Method::GET, &format!("/admin/users/{}/sessions", logins[0].user)).await;
    world.as_admin(Method::GET, &format!("/admin/sessions/{}?user_id=x", logins[0].session)).await;
    for (labels, count) in [
        ("route=\"/sessions\",method=\"GET\",code=\"200\"", 2),
        ("route=\"/sessions/{id}\",method=\"DELETE\",code=\"204\"", 1),
        ("route=\"/admin/users/{id}/sessions\",method=\"GET\",code=\"200\"", 1),
        ("route=\"/admin/sessions/{id}\",method=\"GET\",code=\"400\"", 1),
    ] {
        world.counts(&format!("gotrue_sidecar_http_requests_total{{{labels}}}"), count).await;
    }
    assert!(world.upstream.seen().is_empty());
    let until_logged = async || world.sidecar.access_log().contains("\"/sessions/{id}\"");
    until("the access line", until_logged).await;
    let log = world.sidecar.access_log();
    let line = log.lines().find(|line| line.contains("\"/sessions/{id}\"")).unwrap();
    assert!(line.contains(&logins[0].session.to_string()) && line.contains("\"aborted\":false"), "{line}");
}

#[tokio::test]
async fn what_it_does_not_have_is_said_as_gotrues_router_says_it() {
    let login = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&login]).await;
    let own = format!("/sessions/{}", login.session);
    for (method, target, allowed) in [
        (Method::POST, "/sessions", &["DELETE", "GET"][..]),
        (Method::HEAD, "/sessions", &["DELETE", "GET"]),
        (Method::OPTIONS, "/sessions", &["DELETE", "GET"]),
        (Method::GET, own.as_str(), &["DELETE"]),
        (Method::PATCH, own.as_str(), &["DELETE"]),
    ] {
        let answer = world.as_user(&login, method, target, "").await;
        let found: Vec<_> = answer.headers.get_all("allow").iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(
            (answer.status.as_u16(), found.as_slice(), answer.body.len()),
            (405, allowed, 0),
            "{target}"
        );
    }
    assert!(world.upstream.seen().is_empty());
    // a path that is not quite one of its own is GoTrue's
    assert_eq!(world.get(&login, "/sessions//").await.body, "404 page not found\n");
    assert_eq!(world.get(&login, "/Sessions").await.body, "404 page not found\n");
}

#[tokio::test]
async fn a_browsers_question_for_permission_is_gotrues_to_answer() {
    let allowed = |_: &Seen| {
        let bytes = b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Methods: DELETE\r\n\r\n".to_vec();
        vec![Step::Send(bytes)]
    };
    let world = World::with(&ON, allowed).await;
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = world.send(Method::OPTIONS, "/sessions?scope=global", &headers, "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("access-control-allow-methods")),
        (204, Some("DELETE"))
    );
    assert_eq!(world.upstream.seen()[0].request_line(), "OPTIONS /sessions?scope=global HTTP/1.1");
}

#[tokio::test]
async fn it_lies_below_the_path_prefix() {
    let login = Login::new(NOW);
    let world = World::with(&[&ON[..], &["--path-prefix", "/auth/v1"]].concat(), gotrue).await;
    world.know(&[&login]).await;
    let listed = world.get(&login, "/auth/v1/sessions?per_page=1").await;
    assert_eq!(ids(&listed), [login.session.to_string()]);
    assert_eq!(listed.header("link"), Some("</sessions?page=1&per_page=1>; rel=\"last\""));
    assert_eq!(world.get(&login, "/sessions").await.status, 404);
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_body_is_left_where_it_is() {
    let logins = sessions(2);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1]]).await;
    let body =
        format!("{{\"scope\":\"global\",\"user_id\":\"{}\"}}{}", Login::new(NOW).user, " ".repeat(3 << 20));
    let target = format!("/sessions/{}", logins[1].session);
    assert_eq!(world.as_user(&logins[0], Method::DELETE, &target, &body).await.status, 204);
    assert!(world.is_live(&logins[0]).await && !world.is_live(&logins[1]).await);
}
