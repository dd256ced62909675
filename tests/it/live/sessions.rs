//! What passes through the sidecar is in the store: sign-in, refresh, lookup and logout of every scope
//! (contract §3 to §6.1, I4, I10).

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::{Client, Tokens, admin::signed, new_email},
    gotrue::{Kind, Settings, Signing},
    pod::{Pod, keys_without_ttl},
    until,
};

#[tokio::test]
async fn after_each_step_the_store_is_auth_sessions() {
    let pod = Pod::start().await;
    let (client, email) = (pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    pod.assert_true("sign-up").await;
    let laptop = client.sign_in(&email).await;
    let tablet = client.sign_in(&email).await;
    pod.assert_true("sign-in").await;
    let laptop = Tokens::of(&client.refresh(&laptop).await);
    pod.assert_true("refresh").await;
    assert_eq!(client.refresh_with("aaaaaaaaaaaa").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(client.logout(&phone, "?scope=everywhere").await.status, StatusCode::BAD_REQUEST);
    pod.assert_true("what GoTrue refuses").await;

    assert_eq!(client.logout(&tablet, "?scope=local").await.status, StatusCode::NO_CONTENT);
    pod.assert_true("logout of one").await;
    let neighbour = client.sign_up(&new_email()).await;
    assert_eq!(client.logout(&laptop, "?scope=others").await.status, StatusCode::NO_CONTENT);
    assert_eq!(pod.stored().await.len(), 2);
    pod.assert_true("logout of the others").await;
    client.sign_in(&email).await;
    assert_eq!(client.logout(&laptop, "?scope=global").await.status, StatusCode::NO_CONTENT);
    pod.record(neighbour.session).await;
    pod.assert_true("logout everywhere").await;
    assert_eq!(client.user(&laptop).await.error_code(), Some("session_not_found"));

    let phone = client.sign_in(&email).await;
    let laptop = client.sign_in(&email).await;
    assert_eq!(client.logout(&phone, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(pod.stored().await.len(), 1, "the neighbour's");
    if pod.gotrue.kind().logs_out_everywhere_by_default() {
        pod.assert_true("logout without a scope").await;
    } else {
        // the mirror does as GoTrue would, where this server keeps the other one
        assert!(pod.gotrue.sessions().await.contains(&(laptop.session, laptop.user)));
    }
    assert_eq!(keys_without_ttl(&mut pod.redis.client().await).await, [""; 0]);
}

#[tokio::test]
async fn a_forged_logout_changes_nothing() {
    let pod = Pod::start().await;
    let client = pod.client();
    let phone = client.sign_up(&new_email()).await;
    let forged =
        Tokens { access: signed("another-secret-of-at-least-32-characters", &phone.claims()), ..phone };
    let answer = client.logout(&forged, "?scope=global").await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    assert_eq!(pod.stored().await.len(), 1);
    pod.assert_true("a forged logout").await;
}

#[tokio::test]
async fn a_record_says_who_signed_in_how_and_until_when() {
    let pod = Pod::start().await;
    let client = pod.client().with("User-Agent", "a phone").with("X-Forwarded-For", "203.0.113.7");
    let before = now();
    let phone = client.sign_up(&new_email()).await;
    let first = pod.record(phone.session).await;
    let claims = phone.claims();
    assert_eq!(first["user_id"], phone.user.to_string());
    assert_eq!(first["session_id"], phone.session.to_string());
    assert_eq!(first["expires_at"], claims["exp"].to_string());
    assert_eq!(first["refreshed_at"], claims["iat"].to_string());
    assert_eq!(first["role"], "authenticated");
    assert_eq!(first["anonymous"], "0");
    assert!((before..=now()).contains(&first["created_at"].parse().unwrap()), "{first:?}");
    assert_eq!((first["ip"].as_str(), first["user_agent"].as_str()), ("203.0.113.7", "a phone"));
    if pod.gotrue.kind().tells_how_one_signed_in() {
        assert_eq!((first["aal"].as_str(), first["amr"].as_str()), ("aal1", "password"));
        let row = &pod.gotrue.rows().await[0];
        assert_eq!((row.ip.as_str(), row.user_agent.as_str()), ("203.0.113.7", "a phone"));
    } else {
        assert_eq!((first.get("aal"), first.get("amr")), (None, None), "a token that does not say");
    }

    let train = pod.client().with("User-Agent", "a train").with("X-Forwarded-For", "2001:db8::1");
    let phone = Tokens::of(&train.refresh(&phone).await);
    let second = pod.record(phone.session).await;
    assert_eq!(second["created_at"], first["created_at"]);
    assert_eq!(second["expires_at"], phone.claims()["exp"].to_string());
    assert_eq!((second["ip"].as_str(), second["user_agent"].as_str()), ("2001:db8::1", "a train"));
    if pod.gotrue.kind().tells_how_one_signed_in() {
        let row = &pod.gotrue.rows().await[0];
        assert_eq!((row.ip.as_str(), row.user_agent.as_str()), ("2001:db8::1", "a train"));
    }
}

#[tokio::test]
async fn the_refresh_index_names_the_current_and_the_previous_token() {
    let pod = Pod::start().await;
    let client = pod.client();
    let phone = client.sign_up(&new_email()).await;
    let first = pod.record(phone.session).await["refresh_ref"].clone();
    let refreshed = Tokens::of(&client.refresh(&phone).await);
    let record = pod.record(phone.session).await;
    assert_eq!(record["previous_ref"], first);
    assert_ne!(record["refresh_ref"], first);
    let mut redis = pod.redis.client().await;
    for reference in [&first, &record["refresh_ref"]] {
        let key = format!("gotrue:refresh:{reference}");
        let owner: String = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
        assert_eq!(owner, format!("{}/{}", phone.user, phone.session));
    }
    // No token is in Redis, whatever its key or type (contract I7).
    let dump: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    let said = format!("{dump:?} {:?}", pod.stored().await);
    for token in [&phone.refresh, &phone.access, &refreshed.refresh, &refreshed.access] {
        assert!(!said.contains(token.as_str()));
    }
}

#[tokio::test]
async fn a_session_that_ended_behind_the_sidecar_is_found_out() {
    let pod = Pod::start().await;
    let (client, behind) = (pod.client(), Client::new(&pod.gotrue.url));
    let email = new_email();
    let (phone, laptop) = (client.sign_up(&email).await, client.sign_in(&email).await);
    let tablet = client.sign_in(&email).await;
    for tokens in [&phone, &laptop] {
        assert_eq!(behind.logout(tokens, "?scope=local").await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(pod.stored().await.len(), 3);
    // An access token tells, and so does a refresh token.
    assert_eq!(client.user(&phone).await.error_code(), Some("session_not_found"));
    until("the first is gone", async || pod.stored().await.len() == 2).await;
    assert_eq!(client.refresh(&laptop).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(pod.stored().await.len(), 1);
    pod.record(tablet.session).await;
}

#[tokio::test]
async fn a_lookup_notes_when_a_session_was_last_seen() {
    let pod = Pod::start().await;
    let client = pod.client();
    let phone = client.sign_up(&new_email()).await;
    let mut redis = pod.redis.client().await;
    let key = format!("gotrue:{{{}}}:session:{}", phone.user, phone.session);
    let long_ago = now() - 3600;
    let () = redis::cmd("HSET").arg(&key).arg("seen_at").arg(long_ago).query_async(&mut redis).await.unwrap();
    assert_eq!(client.user(&phone).await.status, StatusCode::OK);
    let seen = async || pod.record(phone.session).await["seen_at"].parse::<u64>().unwrap() > long_ago;
    until("the session was seen", seen).await;
    let logged = async || {
        let log = pod.sidecar.access_log();
        log.lines().any(|line| line.contains("/user") && line.contains(&phone.session.to_string()))
    };
    until("the access log knows the session", logged).await;
}

#[tokio::test]
async fn enforce_refuses_what_was_revoked_here_and_a_refresh_ends_it_in_gotrue() {
    let pod = Pod::start_with(Settings::default(), &["--enforce=true"]).await;
    let client = pod.client();
    let phone = client.sign_up(&new_email()).await;
    assert_eq!(client.user(&phone).await.status, StatusCode::OK);
    // As another replica would have revoked it.
    let mut redis = pod.redis.client().await;
    let base = format!("gotrue:{{{}}}", phone.user);
    let () = redis::pipe()
        .cmd("SET")
        .arg(format!("{base}:revoked:{}", phone.session))
        .arg("revoked:1")
        .arg("EX")
        .arg(600)
        .cmd("DEL")
        .arg(format!("{base}:session:{}", phone.session))
        .query_async(&mut redis)
        .await
        .unwrap();
    let refused = client.user(&phone).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.error_code(), Some("session_not_found"));
    assert_eq!(Client::new(&pod.gotrue.url).user(&phone).await.status, StatusCode::OK);

    let refused = client.refresh(&phone).await;
    assert_eq!(refused.error_code(), Some("refresh_token_not_found"));
    until("GoTrue ended it", async || pod.gotrue.sessions().await.is_empty()).await;
    pod.assert_true("a refresh of a revoked session").await;
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn keys_that_gotrue_publishes_prove_a_token() {
    Kind::must_be_real();
    let settings = Settings { signing: Signing::Es256, ..Settings::default() };
    let pod = Pod::start_with(settings, &["--enforce=true"]).await;
    let (client, email) = (pod.client(), new_email());
    let (phone, laptop) = (client.sign_up(&email).await, client.sign_in(&email).await);
    let forged =
        Tokens { access: signed("another-secret-of-at-least-32-characters", &json!({})), ..phone.clone() };
    assert_eq!(client.logout(&forged, "").await.error_code(), Some("bad_jwt"));
    pod.assert_true("a forged logout").await;
    assert_eq!(client.logout(&phone, "?scope=local").await.status, StatusCode::NO_CONTENT);
    pod.assert_true("logout of one").await;
    let refused = client.user(&phone).await;
    assert_eq!(refused.error_code(), Some("session_not_found"));
    assert_eq!(client.logout(&laptop, "?scope=global").await.status, StatusCode::NO_CONTENT);
    pod.assert_true("logout everywhere").await;
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
