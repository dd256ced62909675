//! The check asked by a service itself: the files of `docs/gateways/` for Node, Rust and PostgREST.

use std::process::Stdio;

use http::{HeaderMap, HeaderValue, header};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::*;
use crate::support::{gotrue::lite::live_folder, http::send, postgres::Postgres};

#[path = "../../../docs/gateways/session.rs"]
mod session;

/// What a service says of a request with that token: its status, and whom it takes the client for.
type Said = (u16, String);

/// Each of them behaves alike, through everything that may happen.
async fn behaves(mut site: Site, ask: impl AsyncFn(Option<&str>) -> Said) {
    let (tokens, revoked) = (site.sign_in().await, site.sign_in().await);
    let nobody = |status| (status, String::new());
    site.sign_out(&revoked).await;
    // They give the check half a second, after which they let nobody in: on a busy machine it is asked again.
    let says = async |token: Option<&str>, expected: Said| {
        let mut said = ask(token).await;
        for _ in 0..10 {
            if said.0 != 503 {
                break;
            }
            said = ask(token).await;
        }
        assert_eq!(said, expected);
    };
    says(Some(&tokens.access), (200, tokens.user.to_string())).await;
    says(None, nobody(401)).await;
    says(Some("no-token"), nobody(401)).await;
    says(Some(&revoked.access), nobody(403)).await;
    site.redis.hang();
    assert_eq!(ask(Some(&issuer::somebody().access)).await, nobody(503));
    site.redis.go_on();
    site.sidecar.hang();
    assert_eq!(ask(Some(&tokens.access)).await, nobody(503));
    site.sidecar.signal(Signal::KILL);
    site.sidecar.ended().await;
    assert_eq!(ask(Some(&tokens.access)).await, nobody(503));
}

#[tokio::test]
async fn a_rust_service_asks_by_itself() {
    let site = Site::new(&[IN_TIME]).await;
    let check = site.sidecar.admin.to_string();
    behaves(site, async |token| {
        let mut headers = HeaderMap::from_iter([("x-auth-user", "forged")].map(|(name, value)| {
            (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(value))
        }));
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        match session::identity(&check, &headers).await {
            Ok(identity) => {
                assert!(!identity.session.is_empty());
                assert_eq!(identity.role, "authenticated");
                (200, identity.user)
            }
            Err(status) => (status.as_u16(), String::new()),
        }
    })
    .await;
}

/// Express is middleware on Node's own server; this is that server without the former.
#[tokio::test]
async fn a_node_service_asks_by_itself() {
    let site = Site::new(&[IN_TIME]).await;
    let middleware = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gateways/session.mjs");
    let service = format!(
        "import http from 'node:http'
        import {{ requireSession }} from '{middleware}'
        const server = http.createServer((req, res) =>
            requireSession(req, res, () => res.end(JSON.stringify(req.auth))))
        server.listen(0, '127.0.0.1', () => console.log(server.address().port))"
    );
    let mut node = Command::new(live_folder().join("node_modules/.bin/node"))
        .args(["--input-type=module", "--eval", &service])
        .env("SESSION_CHECK", format!("http://{}/check", site.sidecar.admin))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let port = lines.next_line().await.unwrap().expect("the port");
    behaves(site, async |token| {
        let mut request =
            http::Request::get(format!("http://127.0.0.1:{port}/")).header("x-auth-user", "forged");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = send(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status == 503, answer.header("retry-after").is_some());
        assert_eq!(answer.status == 401, answer.header("www-authenticate").is_some());
        let auth: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status.as_u16(), auth["user"].as_str().unwrap_or_default().to_owned())
    })
    .await;
}

#[tokio::test]
async fn postgrest_refuses_what_was_not_checked() {
    let database = Postgres::new().await;
    let sql = crate::support::documents::read("docs/gateways/postgrest.sql");
    database.run(&sql).await;
    let with = r#"{"session_id": "5e551040-0000-4000-8000-000000000001"}"#;
    let key = r#"{"role": "anon"}"#;
    let same = r#"{"x-auth-session": "5e551040-0000-4000-8000-000000000001"}"#;
    let other = r#"{"x-auth-session": "5e551040-0000-4000-8000-000000000002"}"#;
    let empty = r#"{"x-auth-session": ""}"#;
    for (claims, headers, refused) in [
        (with, same, false),
        (with, other, true),
        (with, empty, true),
        (with, "{}", true),
        (key, empty, false),
        (key, "{}", false),
        (key, same, true),
        ("", "", false),
        ("", same, true),
    ] {
        let asked = format!(
            "SELECT set_config('request.jwt.claims', '{claims}', true),
                    set_config('request.headers', '{headers}', true);
             SELECT check_session()"
        );
        let failed = database.client().await.batch_execute(&asked).await.err();
        let code = failed.as_ref().map(|error| error.code().unwrap().code());
        assert_eq!(code, refused.then_some("PT401"), "{claims} {headers}");
    }
}
