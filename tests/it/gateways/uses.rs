//! What an application gets of requests that are let through, and how soon that ends.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::support::{client::admin::signed, until};

#[tokio::test]
async fn the_application_gets_the_request_and_who_sent_it() {
    let site = Site::new(&[]).await;
    let gateways = site.gateways().await;
    let tokens = site.sign_in().await;
    let long = "x".repeat(100_000);
    let requests = [
        ("GET", "/a%20b/x?q=1&r=2", ""),
        ("HEAD", "/", ""),
        ("POST", "/rest/v1/rpc/f?a=/b", "{\"a\": 1}"),
        ("PATCH", "/check", &long),
        ("DELETE", "/check/x;y=1?", ""),
        ("OPTIONS", "/x", ""),
    ];
    for gateway in &gateways {
        for (method, target, body) in requests {
            let what = format!("{} {method} {target}", gateway.name);
            let before = gateway.app.seen().len();
            let answer = gateway.send(method, target, &bearer(&tokens.access), body).await;
            assert_eq!(answer.status(), 200, "{what}");
            let seen = gateway.app.seen()[before..].to_vec();
            assert_eq!(seen.len(), 1, "{what}");
            assert_eq!(seen[0].request_line(), format!("{method} {target} HTTP/1.1"), "{what}");
            assert_eq!(seen[0].body, body.as_bytes(), "{what}");
            for (name, value) in identity(&tokens) {
                assert_eq!(seen[0].header(name), [value], "{what}: {name}");
            }
            assert_eq!(seen[0].header("authorization"), [format!("Bearer {}", tokens.access)], "{what}");
        }
    }
}

/// Browsers ask without credentials before they send some; who answers that stands in the page.
#[tokio::test]
async fn a_preflight_is_a_request_without_a_credential() {
    let site = Site::new(&[]).await;
    for gateway in site.gateways().await {
        let lines = "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n";
        let answer = gateway.send("OPTIONS", "/x", lines, "").await;
        assert_eq!(answer.status(), 401, "{}", gateway.name);
        assert!(gateway.got().is_empty(), "{}", gateway.name);
    }
}

/// Not because the check asks again after a while: it would not within the time that this waits.
#[tokio::test]
async fn a_revoked_session_is_refused_at_once() {
    let site = Site::new(&["--check-max-staleness=60s"]).await;
    for gateway in site.gateways().await {
        let (ends, stays) = (site.sign_in().await, site.sign_in().await);
        for tokens in [&ends, &stays] {
            assert_eq!(gateway.get("/", &bearer(&tokens.access)).await.status(), 200, "{}", gateway.name);
        }
        site.sign_out(&ends).await;
        let began = Instant::now();
        let refused = async || gateway.get("/", &bearer(&ends.access)).await.status() == 403;
        until("the revoked session is refused", refused).await;
        println!("{}: refused {:?} after the logout", gateway.name, began.elapsed());
        assert_eq!(gateway.get("/", &bearer(&stays.access)).await.status(), 200, "{}", gateway.name);
    }
}

/// Anonymous and service keys are JWTs of good signature, and nobody's session.
#[tokio::test]
async fn keys_without_a_session_pass_only_where_that_is_said() {
    for (flags, status) in [(&[][..], 401), (&["--check-keys=allow"][..], 200)] {
        let site = Site::new(flags).await;
        for gateway in site.gateways().await {
            for role in ["anon", "service_role"] {
                let key = signed(issuer::SECRET, &json!({"role": role, "exp": 4_102_444_800_u64}));
                let before = gateway.app.seen().len();
                let answer = gateway.get("/", &bearer(&key)).await;
                assert_eq!(answer.status(), status, "{}: {role}", gateway.name);
                let seen = gateway.app.seen()[before..].to_vec();
                assert_eq!(seen.len(), usize::from(status == 200), "{}: {role}", gateway.name);
                for seen in seen {
                    assert_eq!(seen.header("X-Auth-Role"), [role], "{}", gateway.name);
                    let user = seen.header("X-Auth-User").concat();
                    assert_eq!(user, "", "{}: a key is nobody", gateway.name);
                }
            }
        }
    }
}
