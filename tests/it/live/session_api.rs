//! The session API before a GoTrue that is not scripted (contract §6.3, §6.4, §7, I4).

use gotrue_sidecar::session::SessionId;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    client::{Client, Tokens, admin::signed, new_email},
    client_js,
    gotrue::{Gotrue, Kind, Settings},
    http::Answer,
    pod::Pod,
    until,
};

const ON: &str = "--session-api-enabled=true";
const MINT: &str = "--revoke-upstream=mint";

async fn pod(flags: &[&str]) -> Pod {
    Pod::start_with(Settings::default(), &[&[ON][..], flags].concat()).await
}

async fn delete(client: &Client, tokens: &Tokens, path: &str) -> Answer {
    client.request(Method::DELETE, path, Some(&tokens.access), None).await
}

async fn by_service(pod: &Pod, method: Method, path: &str) -> Answer {
    let key = signed(pod.gotrue.secret, &json!({"role": "service_role", "exp": 4_102_444_800_u64}));
    pod.client().request(method, path, Some(&key), None).await
}

async fn listed(client: &Client, tokens: &Tokens) -> Vec<Value> {
    let answer = client.get("/sessions", tokens).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["sessions"].as_array().unwrap().clone()
}

async fn rows(pod: &Pod) -> Vec<SessionId> {
    pod.gotrue.sessions().await.into_iter().map(|(session, _)| session).collect()
}

#[tokio::test]
async fn the_list_is_the_users_rows_of_auth_sessions() {
    let pod = pod(&[]).await;
    let email = new_email();
    let phone = pod.client().with("User-Agent", "a phone").sign_up(&email).await;
    let laptop = pod.client().with("User-Agent", "a laptop").sign_in(&email).await;
    pod.client().sign_up(&new_email()).await;
    let client = pod.client();
    let sessions = listed(&client, &phone).await;
    assert_eq!(sessions.len(), 2);
    for (tokens, agent) in [(&phone, "a phone"), (&laptop, "a laptop")] {
        let session = sessions.iter().find(|it| it["id"] == tokens.session.to_string()).unwrap();
        let claims = tokens.claims();
        assert_eq!(session["user_agent"], agent);
        assert_eq!(session["current"], tokens.session == phone.session);
        assert_eq!(session["aal"], claims["aal"]);
        let row = pod.gotrue.rows().await.into_iter().find(|row| row.session == tokens.session).unwrap();
        if pod.gotrue.kind().tells_how_one_signed_in() {
            assert_eq!(session["amr"], json!(["password"]));
            assert_eq!((&session["ip"], &session["user_agent"]), (&row.ip.into(), &row.user_agent.into()));
        } else {
            assert_eq!((&session["amr"], row.ip, row.user_agent), (&json!([]), String::new(), String::new()));
        }
    }
    let path = format!("/admin/users/{}/sessions", phone.user);
    let theirs = by_service(&pod, Method::GET, &path).await;
    assert_eq!(theirs.header("x-total-count"), Some("2"));
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn that_there_is_a_second_factor_is_no_secret_its_id_is() {
    Kind::must_be_real();
    let pod = pod(&[]).await;
    let client = pod.client();
    let phone = client.sign_up(&new_email()).await;
    let factor = client.enroll(&phone).await.unwrap();
    let phone = Tokens::of(&client.verify_factor(&phone, &factor).await);
    let sessions = listed(&client, &phone).await;
    assert_eq!((sessions.len(), &sessions[0]["aal"]), (1, &"aal2".into()));
    assert!(!sessions[0].to_string().contains(&factor.id));
}

/// A user's own token says it to GoTrue as well: after the answer, the rows are gone.
#[tokio::test]
async fn what_a_users_own_token_is_good_for_ends_in_gotrue_at_once() {
    let pod = pod(&[]).await;
    let (client, email) = (pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    let laptop = client.sign_in(&email).await;
    client.sign_in(&email).await;
    let answer = delete(&client, &laptop, "/sessions?scope=others").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(rows(&pod).await, [laptop.session]);
    pod.assert_true("others").await;
    assert_eq!(client.user(&phone).await.error_code(), Some("session_not_found"));

    let own = format!("/sessions/{}", laptop.session);
    assert_eq!(delete(&client, &laptop, &own).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rows(&pod).await, []);
    pod.assert_true("its own").await;

    let phone = client.sign_in(&email).await;
    let unseen = Client::new(&pod.gotrue.url).sign_in(&email).await;
    assert_eq!(delete(&client, &phone, "/sessions?scope=global").await.status, StatusCode::NO_CONTENT);
    assert_eq!(rows(&pod).await, []);
    assert!(client.refresh(&unseen).await.status.is_client_error());
    // and whoever signs in again is in
    let again = client.sign_in(&email).await;
    assert_eq!(listed(&client, &again).await.len(), 1);
    pod.assert_true("a sign-in after it").await;
}

/// Contract §6.3: without any further power, GoTrue learns of it when that session refreshes.
#[tokio::test]
async fn another_device_is_out_here_at_once_and_in_gotrue_at_its_next_refresh() {
    let pod = pod(&["--enforce=true"]).await;
    let (client, email) = (pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    let lost = client.sign_in(&email).await;
    let path = format!("/sessions/{}", lost.session);
    assert_eq!(delete(&client, &phone, &path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete(&client, &phone, &path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.user(&lost).await.error_code(), Some("session_not_found"));
    assert!(rows(&pod).await.contains(&lost.session));
    let refused = client.refresh(&lost).await;
    assert_eq!(refused.error_code(), Some("refresh_token_not_found"));
    until("GoTrue has ended it", async || rows(&pod).await == [phone.session]).await;
    pod.assert_true("a revoked session that refreshed").await;
}

/// Contract §6.4.
#[tokio::test]
async fn minting_ends_them_in_gotrue_at_once() {
    let pod = pod(&[MINT]).await;
    let (client, email) = (pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    let (lost, stolen) = (client.sign_in(&email).await, client.sign_in(&email).await);
    let neighbour = client.sign_up(&new_email()).await;
    let path = format!("/sessions/{}", lost.session);
    assert_eq!(delete(&client, &phone, &path).await.status, StatusCode::NO_CONTENT);
    assert!(!rows(&pod).await.contains(&lost.session));
    let path = format!("/admin/sessions/{}?user_id={}", stolen.session, phone.user);
    assert_eq!(by_service(&pod, Method::DELETE, &path).await.status, StatusCode::NO_CONTENT);
    assert!(!rows(&pod).await.contains(&stolen.session));
    // the store asks whose a session is, GoTrue would not
    let path = format!("/sessions/{}", neighbour.session);
    assert_eq!(delete(&client, &phone, &path).await.status, StatusCode::NOT_FOUND);
    let path = format!("/admin/sessions/{}?user_id={}", neighbour.session, phone.user);
    assert_eq!(by_service(&pod, Method::DELETE, &path).await.status, StatusCode::NOT_FOUND);
    assert!(rows(&pod).await.contains(&neighbour.session));
    Client::new(&pod.gotrue.url).sign_in(&email).await; // past the sidecar
    let path = format!("/admin/users/{}/sessions", phone.user);
    assert_eq!(by_service(&pod, Method::DELETE, &path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rows(&pod).await, [neighbour.session]);
    pod.assert_true("all of a user").await;
}

/// Contract §7: who may not is told what GoTrue's own `/user` would tell them, byte for byte where it says the same
/// each time.
#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn whoever_may_not_is_told_what_gotrue_would_tell_them() {
    Kind::must_be_real();
    let pod = pod(&[]).await;
    let direct = Client::new(&pod.gotrue.url);
    let phone = pod.client().sign_up(&new_email()).await;
    let with = |name: &str, value: Value| {
        let mut claims = phone.claims();
        claims[name] = value;
        signed(pod.gotrue.secret, &claims)
    };
    let expired = with("exp", json!(1_700_000_000));
    let forged = signed("another-secret-of-at-least-32-characters", &phone.claims());
    let service = signed(pod.gotrue.secret, &json!({"role": "service_role"}));
    // with a token, and where GoTrue has the same question
    let users = [
        (None, true),
        (Some("garbage".to_owned()), false),
        (Some(forged), false),
        (Some(expired), true),
        (Some(service.clone()), true),
        (Some(with("sub", json!("me"))), true),
        (Some(with("session_id", json!("mine"))), true),
    ];
    for version in ["", "2024-01-01"] {
        for (token, same) in &users {
            let ours = pod.client().with("X-Supabase-Api-Version", version);
            let theirs = direct.clone().with("X-Supabase-Api-Version", version);
            let one = ours.request(Method::GET, "/sessions", token.as_deref(), None).await;
            let other = theirs.request(Method::GET, "/user", token.as_deref(), None).await;
            assert_alike(&one, &other, *same);
        }
        let admins = [
            (None, true),
            (Some(phone.access.clone()), true),
            (Some(with("session_id", json!("mine"))), true),
        ];
        for (token, same) in &admins {
            let ours = pod.client().with("X-Supabase-Api-Version", version);
            let theirs = direct.clone().with("X-Supabase-Api-Version", version);
            let path = format!("/admin/users/{}", phone.user);
            let other = theirs.request(Method::GET, &path, token.as_deref(), None).await;
            let path = format!("{path}/sessions");
            let one = ours.request(Method::GET, &path, token.as_deref(), None).await;
            assert_alike(&one, &other, *same);
        }
        let ours = pod.client().with("X-Supabase-Api-Version", version);
        let theirs = direct.clone().with("X-Supabase-Api-Version", version);
        let one = ours.request(Method::GET, "/admin/users/me/sessions", Some(&service), None).await;
        let other = theirs.request(Method::GET, "/admin/users/me/factors", Some(&service), None).await;
        assert_alike(&one, &other, true);
    }
}

/// Methods that are not there, and a browser's questions.
#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn the_router_and_the_cors_headers_are_as_gotrues() {
    Kind::must_be_real();
    let pod = pod(&[]).await;
    let phone = pod.client().sign_up(&new_email()).await;
    let with_origin = |client: Client| client.with("Origin", "https://app.example");
    let (ours, theirs) = (with_origin(pod.client()), with_origin(Client::new(&pod.gotrue.url)));
    for token in [None, Some(phone.access.as_str())] {
        for method in [Method::POST, Method::PATCH, Method::OPTIONS] {
            let one = ours.request(method.clone(), "/sessions", token, None).await;
            let other = theirs.request(method.clone(), "/user", token, None).await;
            assert_eq!(one.headers.contains_key("allow"), other.headers.contains_key("allow"), "{method}");
            assert_alike(&one, &other, true);
        }
    }
    let preflight = |client: Client| {
        client
            .with("Access-Control-Request-Method", "DELETE")
            .with("Access-Control-Request-Headers", "authorization,x-client-info")
    };
    let one = preflight(ours).request(Method::OPTIONS, "/sessions?scope=global", None, None).await;
    let other = preflight(theirs).request(Method::OPTIONS, "/user", None, None).await;
    assert_eq!(
        (one.status, one.header("access-control-allow-methods")),
        (StatusCode::NO_CONTENT, Some("DELETE"))
    );
    assert_alike(&one, &other, true);
}

/// Status and headers; the body too, where it is always the same.
fn assert_alike(ours: &Answer, theirs: &Answer, same: bool) {
    let kept = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        for name in ["date", "content-length", "allow"] {
            headers.remove(name);
        }
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        (answer.status, lines)
    };
    assert_eq!(kept(ours), kept(theirs));
    if same {
        assert_eq!(ours.body, theirs.body);
    }
}

/// Everything on, and supabase-js has the same day.
#[tokio::test]
async fn the_official_client_sees_no_difference_with_the_session_api() {
    let gotrue = Gotrue::start().await;
    let without = client_js::transcript(&gotrue.url).await;
    let pod = pod(&[MINT, "--enforce=true"]).await;
    let through = client_js::transcript(&pod.sidecar.url).await;
    client_js::assert_same_but_for_refusals(gotrue.kind(), &through, &without);
}
