//! What clients claim to be never reaches the application; and no path or method leads around the check.

use serde_json::json;

use super::*;
use crate::support::client::admin::signed;

/// In every forged value, and nowhere else.
const CANARY: &str = "forged-by-the-client";

/// All that a header's name may contain and that many frameworks take for the dash.
const SIGNS: &str = "_.~!#$%&'*+^`|";

#[tokio::test]
async fn forged_identity_headers_never_reach_the_application() {
    let site = Site::new(&["--check-keys=allow"]).await;
    let user = site.sign_in().await;
    let key = signed(issuer::SECRET, &json!({"role": "anon", "exp": 4_102_444_800_u64}));
    for gateway in site.gateways().await {
        for (token, known) in [(&user.access, true), (&key, false)] {
            for names in batches() {
                // Twice each, on both sides of the credential.
                let lines = names.iter().map(|name| format!("{name}: {CANARY}\r\n"));
                let forged = lines.collect::<Vec<_>>().concat();
                let before = gateway.app.seen().len();
                let answer = gateway.get("/", &format!("{forged}{}{forged}", bearer(token))).await;
                assert_eq!(answer.status(), 200, "{}: {names:?}", gateway.name);
                let seen = gateway.app.seen()[before..].to_vec();
                assert_eq!(seen.len(), 1, "{}", gateway.name);
                for (name, value) in identity(&user).into_iter().filter(|_| known) {
                    assert_eq!(seen[0].header(name), [value], "{}: {name}", gateway.name);
                }
            }
        }
        assert!(!gateway.got().contains(CANARY), "{} let it through:\n{}", gateway.name, gateway.got());
    }
}

/// A header that `Connection` names is for one hop, and removed: perhaps only after the gateway has set it.
#[tokio::test]
async fn connection_cannot_remove_what_the_check_said() {
    let site = Site::new(&[]).await;
    let tokens = site.sign_in().await;
    for gateway in site.gateways().await {
        for named in
            ["close, X-Auth-User", "x-auth-user, x-auth-session, x-auth-role, x-auth-aal", "X-AUTH-AAL"]
        {
            let before = gateway.app.seen().len();
            let lines = format!("Connection: {named}\r\nX-Auth-User: {CANARY}\r\n{}", bearer(&tokens.access));
            let answer = gateway.get("/", &lines).await;
            assert_eq!(answer.status(), 200, "{}: {named}", gateway.name);
            let seen = gateway.app.seen()[before..].to_vec();
            for (name, value) in identity(&tokens) {
                assert_eq!(seen[0].header(name), [value], "{}: {named}: {name}", gateway.name);
            }
        }
        // Without its credential, a request is nobody's.
        let before = gateway.app.seen().len();
        let lines = format!("Connection: Authorization\r\n{}", bearer(&tokens.access));
        let answer = gateway.get("/", &lines).await;
        assert!([200, 401].contains(&answer.status()), "{}", gateway.name);
        for seen in &gateway.app.seen()[before..] {
            assert_eq!(seen.header("X-Auth-User"), [tokens.user.to_string()], "{}", gateway.name);
        }
    }
}

#[tokio::test]
async fn trailers_are_not_taken_for_headers() {
    let site = Site::new(&[]).await;
    let tokens = site.sign_in().await;
    for gateway in site.gateways().await {
        for declared in ["", "Trailer: X-Auth-User\r\n"] {
            let before = gateway.app.seen().len();
            let request = format!(
                "POST / HTTP/1.1\r\nHost: app.example\r\n{}{declared}Transfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nX-Auth-User: {CANARY}\r\n\r\n",
                bearer(&tokens.access),
            );
            assert_eq!(gateway.answer_to("POST", &request).await.status(), 200, "{}", gateway.name);
            let seen = gateway.app.seen()[before..].to_vec();
            assert_eq!(seen[0].header("X-Auth-User"), [tokens.user.to_string()], "{}", gateway.name);
            assert!(!seen[0].head.contains(CANARY), "{}", gateway.name);
        }
        // haproxy.cfg says so, and what to do.
        if gateway.name != "HAProxy" {
            assert!(!gateway.got().contains(CANARY), "{} hands trailers on", gateway.name);
        }
    }
}

/// Two credentials: the check could be asked about one and the application be given the other.
#[tokio::test]
async fn two_credentials_are_none() {
    let site = Site::new(&[]).await;
    let (mine, yours) = (site.sign_in().await, issuer::somebody());
    for gateway in site.gateways().await {
        for (first, second) in [(&mine, &yours), (&yours, &mine), (&mine, &mine)] {
            let lines = format!("{}{}", bearer(&first.access), bearer(&second.access));
            let answer = gateway.get("/", &lines).await;
            assert!([400, 401].contains(&answer.status()), "{}: {}", gateway.name, answer.status());
        }
        assert!(gateway.got().is_empty(), "{} let it through:\n{}", gateway.name, gateway.got());
    }
}

/// Envoy puts the client's path behind `/check`; the admin listener has other paths that anybody may ask for.
#[tokio::test]
async fn no_path_leads_around_the_check() {
    let site = Site::new(&[]).await;
    let targets = [
        "/../metrics",
        "/../../livez",
        "/x/../../metrics",
        "/%2e%2e/metrics",
        "/..%2fmetrics",
        "/.%2e/metrics",
        "/..;/metrics",
        "/..\\metrics",
        "//metrics",
        "/check",
        "/check/../../livez",
        "/livez",
        "/_check",
        "/metrics?",
        "/?/../metrics",
        "/%00",
        "http://app.example/../metrics",
        "*",
    ];
    for gateway in site.gateways().await {
        for target in targets {
            for method in ["GET", "POST", "OPTIONS", "HEAD"] {
                let status = gateway.send(method, target, "", "").await.status();
                // What is asked of the server, not of the application, it may answer by itself.
                let refused = (400..500).contains(&status) || target == "*";
                assert!(refused, "{}: {method} {target}: {status}", gateway.name);
            }
        }
        assert!(gateway.got().is_empty(), "{} let it through:\n{}", gateway.name, gateway.got());
    }
}

/// Every name that might be read as one of [`IDENTITY`], few enough at a time for any gateway.
fn batches() -> Vec<Vec<String>> {
    let mut names = Vec::new();
    for name in IDENTITY {
        let twins = [name.to_owned(), name.to_lowercase(), name.to_uppercase()];
        names.extend(twins);
        names.extend(SIGNS.chars().flat_map(|sign| {
            let sign = sign.to_string();
            let lower = name.to_lowercase();
            [name.replace('-', &sign), lower.replace('-', &sign), name.replacen('-', &sign, 1)]
        }));
        let (first, last) = name.rsplit_once('-').unwrap();
        names.extend(SIGNS.chars().map(|sign| format!("{first}{sign}{last}")));
    }
    names.chunks(30).map(<[String]>::to_vec).collect()
}
