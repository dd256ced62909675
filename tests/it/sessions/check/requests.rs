//! Nothing in a request but its credential counts: whatever gateways pass on, and clients forge.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::*;
use crate::support::raw::Raw;

#[tokio::test]
async fn every_method_path_and_query_is_one_question() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    let bearer = format!("Bearer {}", login.access(&world.signer));
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND"] {
        for target in ["/check", "/check/", "/check?q=1", "/check/a%20b/x?q=1&r=2", "/check/..%2Flivez"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let yes =
                check_with(&world.sidecar, method.clone(), target, &[("authorization", &bearer)], "").await;
            assert_eq!(identity(&yes)[0], login.user.to_string(), "{method} {target}");
            let no = check_with(&world.sidecar, method.clone(), target, &[], "").await;
            assert_eq!(no.status, 401, "{method} {target}");
        }
    }
}

/// Envoy's way: the client's method, and a length without a body; and somebody who never sends the body.
#[tokio::test]
async fn a_body_is_never_waited_for() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    let token = login.access(&world.signer);
    for framing in ["Content-Length: 0", "Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let mut raw = Raw::connect(world.sidecar.admin).await;
        raw.send(format!(
            "POST /check/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{framing}\r\n\r\n"
        ))
        .await;
        assert_eq!(raw.answer().await.status(), 200, "{framing}");
    }
    // nginx's way
    let mut raw = Raw::connect(world.sidecar.admin).await;
    raw.send(format!(
        "GET /check HTTP/1.0\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.answer().await.status(), 200);
    raw.closed().await;
}

#[tokio::test]
async fn connections_are_kept_for_the_next_question() {
    let login = Login::new(NOW);
    let world = World::checking(&["--limits-header-read-timeout", "200ms"]).await;
    world.know(&[&login]).await;
    let token = login.access(&world.signer);
    let mut raw = Raw::connect(world.sidecar.admin).await;
    for turn in 0..3 {
        raw.send(format!("GET /check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), 200);
        assert!(answer.header("connection").is_empty(), "{turn}");
        tokio::time::sleep(Duration::from_millis(600)).await; // longer than a head may take
    }
    world.sidecar.drain.begin();
    raw.send(format!("GET /check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.header("connection"), ["close"]);
    raw.closed().await;
}

#[tokio::test]
async fn http2_asks_the_same_question() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    let stream = TcpStream::connect(world.sidecar.admin).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (token, status) in [(login.access(&world.signer), 200), ("a.b.c".to_owned(), 401)] {
        let request = Request::post("http://sidecar/check/anything?x=y")
            .header("authorization", format!("Bearer {token}"))
            .header("x-auth-user", "forged")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        assert_eq!(head.status, status);
        assert_eq!(head.headers["cache-control"], "no-store");
        let user = head.headers.get("x-auth-user").map(|user| user.to_str().unwrap().to_owned());
        assert_eq!(user, (status == 200).then(|| login.user.to_string()));
        body.collect().await.unwrap();
    }
}

/// Threat: a client sends the headers that the check answers with, or others that look like credentials.
#[tokio::test]
async fn forged_identities_are_not_looked_at() {
    let (login, other) = (Login::new(NOW), Login::new(NOW));
    let world = World::checking(&[]).await;
    world.know(&[&login, &other]).await;
    let mine = format!("Bearer {}", login.access(&world.signer));
    let theirs = format!("Bearer {}", other.access(&world.signer));
    let forged: Vec<(&str, &str)> = vec![
        ("x-auth-user", "forged"),
        ("X_Auth_User", "forged"),
        ("x-auth-role", "service_role"),
        ("x-auth-session", "forged"),
        ("x-auth-email", "root@example.com"),
        ("x-auth-aal", "aal2"),
        ("x-auth-expires", "9999999999"),
        ("x-forwarded-user", "forged"),
        ("x-original-url", "http://x/livez"),
        ("x-forwarded-uri", "/livez"),
        ("x-http-method-override", "GET"),
        ("proxy-authorization", &theirs),
        ("x-authorization", &theirs),
        ("cookie", "sb-access-token=forged"),
        ("apikey", &theirs),
    ];
    let nobody = check_with(&world.sidecar, Method::GET, "/check", &forged, "").await;
    assert_eq!(nobody.status, 401);
    assert!(IDENTITY.iter().all(|name| !nobody.headers.contains_key(*name)), "{nobody:?}");
    let headers = [&forged[..], &[("authorization", mine.as_str())]].concat();
    let answer = check_with(&world.sidecar, Method::GET, "/check", &headers, "").await;
    let expected = [
        &login.user.to_string(),
        &login.session.to_string(),
        "authenticated",
        "",
        "aal1",
        &login.expires.to_string(),
    ];
    assert_eq!(identity(&answer), expected);
    // two credentials are none, whichever is good
    for two in [[&mine, &theirs], [&mine, &mine]] {
        let headers = two.map(|value| ("authorization", value.as_str()));
        let answer = check_with(&world.sidecar, Method::GET, "/check", &headers, "").await;
        assert_eq!(said(&answer), (401, Some("bad_jwt")));
    }
    let mut basic = headers.clone();
    *basic.last_mut().unwrap() = ("authorization", "Basic Zm9yZ2VkOmZvcmdlZA==");
    assert_eq!(check_with(&world.sidecar, Method::GET, "/check", &basic, "").await.status, 401);
}

/// Threat: a claim that a custom hook let a user choose breaks out of its header.
#[tokio::test]
async fn claims_do_not_break_out_of_their_headers() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    for odd in ["a\r\nX-Auth-Role: service_role", "a\nb", "a b", "ö@b.example", "\0", &"a".repeat(300)] {
        let mut claims = login.claims();
        claims["email"] = odd.into();
        let answer = world.check_token(&world.signer.sign(&claims)).await;
        assert_eq!((identity(&answer)[2], identity(&answer)[3]), ("authenticated", ""), "{odd:?}");
    }
}

/// Threat: bytes that a gateway and we could read differently; heads that are too large. Never another status.
#[tokio::test]
async fn what_cannot_be_read_is_no_credential() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    let token = login.access(&world.signer);
    let good = format!("Authorization: Bearer {token}");
    let many = "X-Some: y\r\n".repeat(200);
    for lines in [
        format!("{good}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
        format!("{good}\r\nContent-Length: 1\r\nContent-Length: 2\r\n"),
        format!("{good}\r\nX-Long: {}\r\n", "a".repeat(100_000)),
        format!("{good}\r\n{many}"),
    ] {
        let mut raw = Raw::connect(world.sidecar.admin).await;
        raw.send(format!("GET /check HTTP/1.1\r\nHost: x\r\n{lines}\r\n")).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status(), 401, "{}", lines.split_at(lines.len().min(300)).0);
        assert_eq!(answer.header("cache-control"), ["no-store"]);
        assert_eq!(answer.header("connection"), ["close"]);
    }
    // as large as gateways make them is not too large
    let mut raw = Raw::connect(world.sidecar.admin).await;
    raw.send(format!("GET /check HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n{good}\r\n\r\n", "c".repeat(40_000)))
        .await;
    assert_eq!(raw.answer().await.status(), 200);
}

/// Threat: who claims to be a gateway's or a platform's probe is let through (oauth2-proxy CVE-2026-34457).
#[tokio::test]
async fn a_probes_name_opens_nothing() {
    let world = World::checking(&["--session-api-enabled", "true"]).await;
    for agent in
        ["kube-probe/1.31", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Consul Health Check", "Prometheus/3.0"]
    {
        let headers = [("user-agent", agent), ("x-health-check", "1")];
        let answer = check_with(&world.sidecar, Method::GET, "/check", &headers, "").await;
        assert_eq!(said(&answer), (401, Some("no_authorization")), "{agent}");
        let answer = world.send(Method::GET, "/sessions", &headers, "").await;
        assert_eq!(said(&answer), (401, Some("no_authorization")), "{agent}");
    }
}

/// Threat: what is for the cluster alone can be had from outside (Pomerium CVE-2022-24797), or the other way round.
#[tokio::test]
async fn neither_listener_has_what_is_for_the_other() {
    let world = World::checking(&["--session-api-enabled", "true"]).await;
    let login = Login::new(NOW);
    let bearer = format!("Bearer {}", login.access(&world.signer));
    for (method, target) in [
        ("GET", "/metrics"),
        ("GET", "/livez"),
        ("GET", "/readyz?verbose"),
        ("GET", "/check"),
        ("GET", "/check/x"),
        ("POST", "/drain"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = world.send(method.clone(), target, &[("authorization", &bearer)], "").await;
        assert_eq!((answer.status.as_u16(), answer.body.is_empty()), (204, true), "{target}");
        assert!(IDENTITY.iter().all(|name| !answer.headers.contains_key(*name)), "{target}");
        let line = format!("{method} {target} HTTP/1.1");
        world.upstream.arrived(&line).await; // it is GoTrue's to answer
    }
    for target in
        ["/sessions", "/admin/users", "/user", "/token", "/health", "/", "//metrics", "/metrics/", "/Metrics"]
    {
        let request = Request::get(format!("http://{}{target}", world.sidecar.admin));
        let answer =
            send(request.header("authorization", &bearer).body(String::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status, 404, "{target}");
    }
}
