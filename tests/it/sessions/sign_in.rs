//! Sign-in and refresh (contract §3 step 3, I1, I6).

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::*;
use crate::support::upstream::Gate;

#[tokio::test]
async fn a_login_is_in_the_store_before_the_client_sees_the_answer() {
    let login = Login::new(NOW);
    let world = World::new(always(login.answer(&Signer::trusted()))).await;
    for target in [
        PASSWORD,
        "/token?grant_type=pkce",
        "/token?grant_type=id_token",
        "/token?grant_type=web3",
        "/signup",
        "/signup/",
        "/verify",
        "/verify/",
        "/callback",
        "/oauth/token",
        "/passkeys/authentication/verify",
    ] {
        let answer = world.post(target, "{}").await;
        assert_eq!(answer.body, login.body(&world.signer), "{target}");
        let record = world.live(&login).await;
        assert_eq!((record.began_ms, record.expires_at), (NOW_MS, NOW + 3600), "{target}");
        assert_eq!(record.refresh_ref, Some(reference(&login)), "{target}");
        let mut redis = world.redis.client().await;
        let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_passes_exactly_as_it_came() {
    let login = Login::new(NOW);
    let body = format!(" \n{}\t", login.body(&Signer::trusted()).replace(',', " ,\r\n "));
    let (first, rest) = body.split_at(100);
    let head = "HTTP/1.1 200 OK\r\nVary: Origin\r\nContent-Type: application/json;charset=utf-8\r\n\
                Set-Cookie: a=1\r\nX-Odd:  two  words \r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = format!("{:x}\r\n{first}\r\n{:X};ext=1\r\n{rest}\r\n0\r\n\r\n", first.len(), rest.len());
    let world = World::new(always(format!("{head}{chunks}").into_bytes())).await;
    let answer = world.post(PASSWORD, "{}").await;
    let headers: Vec<_> =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let expected: [(&str, &[u8]); 6] = [
        ("vary", b"Origin"),
        ("content-type", b"application/json;charset=utf-8"),
        ("set-cookie", b"a=1"),
        ("set-cookie", b"b=2"),
        ("x-odd", b"two  words"),
        ("transfer-encoding", b"chunked"),
    ];
    assert_eq!(headers.iter().filter(|(name, _)| *name != "date").copied().collect::<Vec<_>>(), expected);
    assert_eq!(answer.body, body);
    assert!(world.is_live(&login).await);
}

#[tokio::test]
async fn a_refresh_renews_its_session() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 100);
    let world = World::new(always(renewed.answer(&Signer::trusted()))).await;
    world.know(&[&login]).await;
    world.pass(100_000);
    assert_eq!(world.refresh(&login).await.status, 200);
    let record = world.live(&login).await;
    assert_eq!((record.created_at, record.refreshed_at, record.expires_at), (NOW, NOW + 100, NOW + 3700));
    assert_eq!(
        (record.refresh_ref, record.previous_ref),
        (Some(reference(&renewed)), Some(reference(&login)))
    );
    for token in [&login, &renewed] {
        let owner = session_of(&world.store, &reference(token), NOW + 100).await.unwrap();
        assert_eq!(owner, Some((login.user, login.session)));
    }
}

#[tokio::test]
async fn a_session_from_before_the_sidecar_is_known_at_its_first_refresh() {
    let login = Login::new(NOW - 5000).refreshed(NOW);
    let world = World::new(always(login.answer(&Signer::trusted()))).await;
    assert_eq!(world.refresh(&login).await.status, 200);
    let record = world.live(&login).await;
    assert_eq!((record.created_at, record.began_ms, record.refreshed_at), (NOW - 5000, 0, NOW));
}

/// I6: sign-in, refresh, and an endpoint that is not known yet.
#[tokio::test]
async fn what_gotrue_has_done_is_recorded_though_the_client_has_left() {
    for target in [PASSWORD, REFRESH, "/sign-in/by-telepathy"] {
        let login = Login::new(NOW).refreshed(NOW);
        let (gate, held) = (Gate::default(), login.answer(&Signer::trusted()));
        let opened = gate.clone();
        let world = World::new(move |_| vec![Step::Until(gate.clone()), Step::Send(held.clone())]).await;
        let body = refresh_body(&login);
        let mut client = TcpStream::connect(world.sidecar.address).await.unwrap();
        let head_lines =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(format!("{head_lines}{body}").as_bytes()).await.unwrap();
        world.upstream.arrived(&format!("POST {target}")).await;
        if target == PASSWORD || target == REFRESH {
            drop(client);
            opened.open();
        } else {
            opened.open(); // the answer streams: the client must have left before it is through
            drop(client);
        }
        world.becomes(&login, |state| matches!(state, State::Live(_))).await;
    }
}

#[tokio::test]
async fn an_endpoint_yet_to_come_is_recorded_by_the_form_of_its_answer() {
    let login = Login::new(NOW);
    let world = World::new(always(login.answer(&Signer::trusted()))).await;
    let answer = world.post("/sign-in/by-telepathy", "{}").await;
    assert_eq!(answer.body, login.body(&world.signer));
    world.becomes(&login, |state| matches!(state, State::Live(_))).await;
}

#[tokio::test]
async fn a_redirect_with_tokens_is_recorded_and_goes_out_untouched() {
    let signer = Signer::trusted();
    for (method, target) in [
        (Method::GET, "/verify?token=t&type=signup"),
        (Method::GET, "/callback?state=s&code=c"),
        (Method::POST, "/callback"),
        (Method::POST, "/sso/saml/acs"),
    ] {
        let login = Login::new(NOW);
        let (access, refresh) = (login.access(&signer), login.refresh());
        let location = format!(
            "http://localhost:3000/cb?x=1#access_token={access}&expires_in=3600&refresh_token={refresh}&sb=&token_type=bearer"
        );
        let html = format!("<a href=\"{}\">See Other</a>.\n\n", location.replace('&', "&amp;"));
        let bytes = answer(
            "303 See Other",
            &[("Content-Type", "text/html; charset=utf-8"), ("Location", &location)],
            &html,
        );
        let world = World::new(always(bytes)).await;
        let answer = world.send(method, target, &[], "").await;
        assert_eq!(answer.status, 303);
        assert_eq!(answer.headers["location"], location);
        assert_eq!(answer.body, html);
        assert!(world.is_live(&login).await, "{target}");
        let route = target.split('?').next().unwrap();
        until("the access line", async || world.sidecar.access_log().contains(route)).await;
        let log = world.sidecar.access_log();
        assert!(!log.contains(&access) && !log.contains(&refresh), "{log}");
    }
}

#[tokio::test]
async fn a_redirect_with_a_code_records_nothing_whatever_its_headers_say() {
    let login = Login::new(NOW);
    let (user, session) = (login.user.to_string(), login.session.to_string());
    let headers = [
        ("Location", "http://localhost:3000/cb?code=5e551040-0000-4000-8000-00000000c0de"),
        ("Sb-Auth-User-Id", user.as_str()),
        ("Sb-Auth-Session-Id", session.as_str()),
    ];
    let world = World::new(always(answer("302 Found", &headers, ""))).await;
    assert_eq!(world.post("/sso/saml/acs", "").await.status, 302);
    assert_eq!(world.state(&login).await, State::Unknown);
}
