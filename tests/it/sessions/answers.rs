//! Answers that cannot be read, or that contradict themselves: passed on unchanged, counted, never
//! stored (I1, contract §5).

use super::*;

#[tokio::test]
async fn a_compressed_login_passes_and_is_counted() {
    let login = Login::new(NOW);
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "br")];
    let world = World::new(always(answer("200 OK", &headers, &login.body(&Signer::trusted())))).await;
    let answer = world.send(Method::POST, PASSWORD, &[("accept-encoding", "br, gzip")], "{}").await;
    assert_eq!(answer.body, login.body(&world.signer));
    assert_eq!(answer.headers["content-encoding"], "br");
    assert_eq!(world.dropped("encoded").await, 1);
    assert_eq!(world.state(&login).await, State::Unknown);
    // it was asked not to do that
    assert_eq!(world.upstream.seen()[0].header("accept-encoding"), ["identity"]);
}

#[tokio::test]
async fn a_login_that_is_too_large_passes_and_is_counted() {
    let login = Login::new(NOW);
    let body =
        login.body(&Signer::trusted()).replacen('{', &format!("{{\"pad\":\"{}\",", "x".repeat(5000)), 1);
    for chunked in [false, true] {
        let bytes = if chunked {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
        } else {
            json(&body)
        };
        let flags = ["--jwt-secret", SECRET, "--limits-response-body-bytes", "4KiB"];
        let world = World::with(&flags, always(bytes)).await;
        for target in [PASSWORD, "/sign-in/by-telepathy"] {
            assert_eq!(world.post(target, "{}").await.body, body);
        }
        world.counts(&dropped("too_large"), 2).await;
        assert_eq!(world.state(&login).await, State::Unknown);
    }
}

#[tokio::test]
async fn a_login_that_breaks_off_breaks_off_for_the_client_and_is_counted() {
    let login = Login::new(NOW);
    let whole = login.answer(&Signer::trusted());
    let part = whole[..whole.len() - 10].to_vec();
    let world = World::new(move |_| vec![Step::Send(part.clone()), Step::Close]).await;
    for target in [PASSWORD, "/sign-in/by-telepathy"] {
        let request = Request::post(format!("{}{target}", world.sidecar.url)).body("{}".to_owned()).unwrap();
        assert!(send(request).await.is_err(), "{target} is taken for whole");
    }
    world.counts(&dropped("cut_off"), 2).await;
    assert_eq!(world.state(&login).await, State::Unknown);
}

/// Header against claim, body against claim, refresh token against claim, and ids that are none.
#[tokio::test]
async fn ids_that_contradict_each_other_record_nothing() {
    let signer = Signer::trusted();
    let (login, other) = (Login::new(NOW), Login::new(NOW));
    let (user, session) = (login.user.to_string(), login.session.to_string());
    let (other_user, other_session) = (other.user.to_string(), other.session.to_string());
    let with = |headers: &[(&str, &str)], body: String| {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend(headers);
        answer("200 OK", &all, &body)
    };
    let mut odd = login.claims();
    odd["session_id"] = "custom-session-string".into();
    let odd = login.body(&signer).replace(&login.access(&signer), &signer.sign(&odd));
    let nowhere = odd.replace(&login.refresh(), "abcdefghijkl");
    let table = [
        ("contradiction", with(&[("Sb-Auth-Session-Id", &other_session)], login.body(&signer))),
        ("contradiction", with(&[("Sb-Auth-User-Id", &other_user)], login.body(&signer))),
        ("contradiction", with(&[("Sb-Auth-Session-Id", "none")], login.body(&signer))),
        ("contradiction", json(&login.body(&signer).replace(&login.refresh(), &other.refresh()))),
        (
            "contradiction",
            json(&login.body(&signer).replace(&format!("\"{user}\""), &format!("\"{other_user}\""))),
        ),
        ("contradiction", with(&[("Sb-Auth-Session-Id", &session)], odd)),
        ("no_session", json(&nowhere)),
        ("bad_token", json(r#"{"access_token":"not.a.token","refresh_token":"abcdefghijkl"}"#)),
        (
            "bad_token",
            json(&login.body(&signer).replace(&login.access(&signer), &signer.sign(&serde_json::json!({})))),
        ),
    ];
    for (reason, bytes) in table {
        let world = World::new(always(bytes.clone())).await;
        let got = world.post(PASSWORD, "{}").await;
        assert!(bytes.ends_with(&got.body));
        assert_eq!(world.dropped(reason).await, 1, "{reason}: {}", String::from_utf8_lossy(&bytes));
        for (user, session) in
            [(login.user, login.session), (login.user, other.session), (other.user, login.session)]
        {
            assert_eq!(world.state_of(user, session).await, State::Unknown);
        }
    }
}

/// Errors and bare users, even with GoTrue's session header, which may name what was rolled back.
#[tokio::test]
async fn an_answer_without_tokens_records_nothing() {
    let login = Login::new(NOW);
    let (user, session) = (login.user.to_string(), login.session.to_string());
    let headers = [
        ("Content-Type", "application/json"),
        ("Sb-Auth-User-Id", user.as_str()),
        ("Sb-Auth-Session-Id", session.as_str()),
    ];
    let tokens = login.body(&Signer::trusted());
    for (status, body) in [
        ("200 OK", r#"{"id":"x"}"#),
        ("200 OK", r#"{"code":"200","msg":"Confirmation link accepted."}"#),
        ("403 Forbidden", r#"{"code":403,"error_code":"unknown","msg":"not today"}"#),
        ("500 Internal Server Error", "{}"),
        ("400 Bad Request", &tokens),
        ("200 OK", "[1,2"),
        ("200 OK", ""),
    ] {
        let world = World::new(always(answer(status, &headers, body))).await;
        assert_eq!(world.post("/signup", "{}").await.body, body);
        assert_eq!(world.state(&login).await, State::Unknown, "{status} {body}");
    }
}

#[tokio::test]
async fn session_headers_that_a_client_sends_have_no_effect() {
    let (login, other) = (Login::new(NOW), Login::new(NOW));
    let world = World::new(always(json(&login.body(&Signer::trusted())))).await;
    let (user, session) = (other.user.to_string(), other.session.to_string());
    let forged = [
        ("sb-auth-session-id", session.as_str()),
        ("sb-auth-user-id", user.as_str()),
        ("sb_auth_session_id", session.as_str()),
        ("x-auth-user", user.as_str()),
    ];
    assert_eq!(world.send(Method::POST, PASSWORD, &forged, "{}").await.status, 200);
    assert!(world.is_live(&login).await);
    assert_eq!(world.state(&other).await, State::Unknown);
    for (name, _) in forged {
        assert_eq!(world.upstream.seen()[0].header(name), [""; 0], "{name}");
    }
}
