//! What a mirror cannot see, on a database that somebody else works on, too (docs/mirror.md).

use http::StatusCode;

use crate::support::{
    client::{Tokens, new_email},
    gotrue::Kind,
    pod::Pod,
    until,
};

/// One whose tables can be got at.
async fn pod() -> Pod {
    Kind::must_be_real();
    Pod::start().await
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn rows_that_are_deleted_by_sql_are_found_out() {
    let pod = pod().await;
    let (client, email) = (pod.client(), new_email());
    let (phone, laptop) = (client.sign_up(&email).await, client.sign_in(&email).await);
    let neighbours = [client.sign_up(&new_email()).await, client.sign_up(&new_email()).await];
    let others = client.sign_in(&email).await;
    for tokens in [&phone, &laptop] {
        pod.gotrue.sql(&format!("DELETE FROM auth.sessions WHERE id = '{}'", tokens.session));
    }
    assert_eq!(pod.stored().await.len(), 5, "the drift");
    assert_eq!(client.user(&phone).await.error_code(), Some("session_not_found"));
    until("an access token told", async || pod.stored().await.len() == 4).await;
    assert_eq!(client.refresh(&laptop).await.error_code(), Some("refresh_token_not_found"));
    pod.assert_true("a refresh token told").await;

    pod.gotrue.sql(&format!("DELETE FROM auth.users WHERE id = '{}'", neighbours[0].user));
    assert_eq!(pod.stored().await.len(), 3, "the drift");
    assert_eq!(client.user(&neighbours[0]).await.error_code(), Some("user_not_found"));
    until("the user is gone", async || pod.stored().await.len() == 2).await;
    pod.record(neighbours[1].session).await;
    pod.record(others.session).await;
    pod.assert_true("a user deleted by SQL").await;
}

/// As a time-box, the end of a session is asked for at refreshes only.
#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_session_past_its_end_lives_on_in_both() {
    let pod = pod().await;
    let client = pod.client();
    let phone = client.sign_up(&new_email()).await;
    let ends = async |when: &str| {
        let set = format!("UPDATE auth.sessions SET not_after = {when} WHERE id = '{}'", phone.session);
        pod.gotrue.sql(&set);
    };
    ends("now() - interval '1 minute'").await;
    assert_eq!(client.user(&phone).await.status, StatusCode::OK);
    assert_eq!(client.refresh(&phone).await.error_code(), Some("session_expired"));
    pod.assert_true("a refusal that is not the last word").await;
    pod.record(phone.session).await;
    ends("NULL").await;
    Tokens::of(&client.refresh(&phone).await);
    pod.assert_true("a later word").await;
}

/// One session has its second factor, the other gets it, and both verify it at once. GoTrue keeps both, or
/// fails over one; whatever the mirror takes it for, it ends as true as before.
#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn factors_that_are_verified_at_once_leave_the_store_true() {
    let pod = pod().await;
    let client = pod.client();
    for _ in 0..8 {
        let email = new_email();
        let old = client.sign_up(&email).await;
        let factor = client.enroll(&old).await.unwrap();
        let old = Tokens::of(&client.verify_factor(&old, &factor).await);
        let young = client.sign_in(&email).await;
        let (of_old, of_young) =
            tokio::join!(client.verify_factor(&old, &factor), client.verify_factor(&young, &factor));
        for (answer, tokens) in [(of_old, &old), (of_young, &young)] {
            let ended = answer.error_code() == Some("session_not_found");
            assert!(
                ended || answer.status == StatusCode::OK || answer.status.is_server_error(),
                "{answer:?}"
            );
            client.user(tokens).await; // whoever has ended hears of it
        }
        let is_true = async || {
            let stored: Vec<_> = pod.stored().await.iter().map(|stored| stored.session).collect();
            let rows: Vec<_> = pod.gotrue.sessions().await.iter().map(|(session, _)| *session).collect();
            stored == rows
        };
        until("the store is auth.sessions", is_true).await;
    }
}
