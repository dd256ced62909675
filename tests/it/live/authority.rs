//! What only a real GoTrue has: second factors, anonymous users, admins, PKCE, OAuth clients, ghosts (GS §1 to §3).

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::{
        Tokens,
        admin::{Admin, signed},
        new_email,
    },
    gotrue::{Kind, RefreshTokens, Settings},
    pod::Pod,
};

/// A pod for each form of refresh tokens.
async fn pods() -> Vec<Pod> {
    Kind::must_be_real();
    let mut pods = Vec::new();
    for refresh_tokens in [RefreshTokens::V1, RefreshTokens::V2] {
        pods.push(Pod::start_with(Settings { refresh_tokens, ..Settings::default() }, &[]).await);
    }
    pods
}

fn admin(pod: &Pod) -> Admin {
    Admin::new(pod.client(), pod.gotrue.secret)
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn an_anonymous_user_becomes_a_permanent_one() {
    for pod in pods().await {
        let client = pod.client();
        let nobody = Tokens::of(&client.sign_up_anonymously().await);
        let record = pod.record(nobody.session).await;
        assert_eq!((record["anonymous"].as_str(), record["amr"].as_str()), ("1", "anonymous"));
        let named = client.update(&nobody, &json!({"email": new_email()})).await;
        assert_eq!(named.status, StatusCode::OK);
        assert_eq!(pod.record(nobody.session).await["anonymous"], "1");
        let somebody = Tokens::of(&client.refresh(&nobody).await);
        assert_eq!(somebody.session, nobody.session);
        assert_eq!(pod.record(somebody.session).await["anonymous"], "0");
        pod.assert_true("anonymous to permanent").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_second_factor_raises_its_session_and_ends_those_that_have_one() {
    for pod in pods().await {
        let (client, email) = (pod.client(), new_email());
        let phone = client.sign_up(&email).await;
        let laptop = client.sign_in(&email).await;
        let factor = client.enroll(&phone).await.unwrap();
        pod.assert_true("an unverified factor").await;
        let phone = Tokens::of(&client.verify_factor(&phone, &factor).await);
        let record = pod.record(phone.session).await;
        assert_eq!(record["aal"], "aal2");
        // Newest first; within one second in either order.
        assert!(["totp,password", "password,totp"].contains(&record["amr"].as_str()), "{record:?}");
        assert_eq!(client.user(&laptop).await.error_code(), Some("session_not_found"));
        pod.assert_true("a verified factor").await;

        let laptop = client.sign_in(&email).await;
        let laptop = Tokens::of(&client.verify_factor(&laptop, &factor).await);
        pod.assert_true("a step up").await;
        assert_eq!(client.unenroll(&laptop, &factor).await.status, StatusCode::OK);
        for tokens in [&phone, &laptop] {
            assert_eq!(pod.record(tokens.session).await["aal"], "aal1");
        }
        let phone = Tokens::of(&client.refresh(&phone).await);
        assert_eq!(phone.claims()["aal"], "aal1");
        pod.assert_true("an unenrolled factor").await;

        let factor = client.enroll(&phone).await.unwrap();
        let phone = Tokens::of(&client.verify_factor(&phone, &factor).await);
        assert_eq!(admin(&pod).remove_factor(phone.user, &factor.id).await.status, StatusCode::OK);
        assert_eq!(pod.record(phone.session).await["aal"], "aal1");
        pod.assert_true("a factor that an admin removed").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_removed_factor_lowers_only_what_stands_on_it() {
    for pod in pods().await {
        let (client, email) = (pod.client(), new_email());
        let phone = client.sign_up(&email).await;
        let app = client.enroll(&phone).await.unwrap();
        Tokens::of(&client.verify_factor(&phone, &app).await);
        let laptop = client.sign_in(&email).await;
        let laptop = Tokens::of(&client.verify_factor(&laptop, &app).await);
        let key = client.enroll(&laptop).await.unwrap();
        let laptop = Tokens::of(&client.verify_factor(&laptop, &key).await);
        let levels = async || {
            let (phone, laptop) = (pod.record(phone.session).await, pod.record(laptop.session).await);
            (phone["aal"].clone(), laptop["aal"].clone())
        };
        assert_eq!(levels().await, ("aal2".to_owned(), "aal2".to_owned()));
        // GoTrue asks the session's level, not that of a token from before.
        assert_eq!(client.unenroll(&phone, &app).await.status, StatusCode::OK);
        assert_eq!(levels().await, ("aal1".to_owned(), "aal2".to_owned()));
        let rows = pod.gotrue.rows().await;
        let level = |session| rows.iter().find(|row| row.session == session).unwrap().aal.clone();
        assert_eq!((level(phone.session), level(laptop.session)), levels().await);
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_new_password_ends_the_others_or_by_an_admin_all() {
    for pod in pods().await {
        let (client, email) = (pod.client(), new_email());
        let phone = client.sign_up(&email).await;
        let laptop = client.sign_in(&email).await;
        assert_eq!(
            client.update(&phone, &json!({"password": null, "data": {}})).await.status,
            StatusCode::OK
        );
        assert_eq!(pod.stored().await.len(), 2);
        pod.assert_true("no new password").await;
        assert_eq!(client.change_password(&phone, "battery horse").await.status, StatusCode::OK);
        assert_eq!(client.refresh(&laptop).await.error_code(), Some("refresh_token_not_found"));
        assert_eq!(pod.stored().await.len(), 1);
        pod.assert_true("a new password").await;

        let set = admin(&pod).update(phone.user, &json!({"password": "staple correct"})).await;
        assert_eq!(set.status, StatusCode::OK);
        assert_eq!(pod.stored().await.len(), 0);
        pod.assert_true("a new password from an admin").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_ban_suspends_and_lifting_it_revives() {
    Kind::must_be_real();
    let pod = Pod::start_with(Settings::default(), &["--enforce=true"]).await;
    let (client, admin) = (pod.client(), admin(&pod));
    let phone = client.sign_up(&new_email()).await;
    let banned = admin.update(phone.user, &json!({"ban_duration": "1h"})).await;
    assert_eq!(banned.status, StatusCode::OK);
    assert_eq!(client.user(&phone).await.error_code(), Some("user_banned"));
    assert_eq!(client.refresh(&phone).await.error_code(), Some("user_banned"));
    pod.assert_true("a ban").await;
    assert_eq!(admin.update(phone.user, &json!({"ban_duration": "none"})).await.status, StatusCode::OK);
    assert_eq!(client.user(&phone).await.status, StatusCode::OK);
    Tokens::of(&client.refresh(&phone).await);
    pod.assert_true("a ban lifted").await;
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_deleted_user_has_no_sessions() {
    for pod in pods().await {
        for softly in [false, true] {
            let client = pod.client();
            let phone = client.sign_up(&new_email()).await;
            let neighbour = client.sign_up(&new_email()).await;
            assert_eq!(admin(&pod).delete(phone.user, softly).await.status, StatusCode::OK);
            assert_eq!(client.user(&phone).await.status, StatusCode::FORBIDDEN);
            pod.record(neighbour.session).await;
            pod.assert_true(&format!("deleted, softly: {softly}")).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn links_and_codes_sign_in() {
    for pod in pods().await {
        let (client, email) = (pod.client(), new_email());
        client.sign_up(&email).await;
        let link = admin(&pod).link("magiclink", &email).await.unwrap();
        let redirect = client.follow("magiclink", &link.token_hash).await;
        let followed = Tokens::of(&redirect);
        assert_eq!(redirect.status, StatusCode::SEE_OTHER);
        assert_eq!(pod.record(followed.session).await["amr"], "otp");
        let again = client.follow("magiclink", &link.token_hash).await;
        assert!(Tokens::in_answer(&again).is_none());
        pod.assert_true("GET /verify").await;

        let link = admin(&pod).link("recovery", &email).await.unwrap();
        let by_hash = Tokens::of(&client.verify("recovery", &link.token_hash).await);
        let link = admin(&pod).link("magiclink", &email).await.unwrap();
        let body = json!({"type": "email", "email": email, "token": link.otp});
        let by_code = Tokens::of(&client.post("/verify", &body).await);
        assert_ne!(by_hash.session, by_code.session);
        pod.assert_true("POST /verify").await;

        assert_eq!(client.recover_with_code(&email).await.status, StatusCode::OK);
        let token = pod.gotrue.recovery_token(&email).await;
        let redirect = client.follow("recovery", &token).await;
        pod.assert_true("a link to a code").await;
        let traded = Tokens::of(&client.trade_code(&redirect).await);
        pod.record(traded.session).await;
        pod.assert_true("a code traded for tokens").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_ghost_is_in_the_database_and_nowhere_else() {
    for pod in pods().await {
        let email = new_email();
        assert_eq!(pod.client().otp(&email).await.status, StatusCode::OK);
        assert_eq!(pod.gotrue.sessions().await.len(), 1, "the drift that docs name");
        assert_eq!(pod.stored().await.len(), 0);
        // Repaired as soon as the user ends it.
        let link = admin(&pod).link("magiclink", &email).await.unwrap();
        let tokens = Tokens::of(&pod.client().verify("magiclink", &link.token_hash).await);
        assert_eq!(pod.client().logout(&tokens, "?scope=others").await.status, StatusCode::NO_CONTENT);
        pod.assert_true("the ghost's user").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn a_token_without_a_session_ends_all_of_its_user() {
    for pod in pods().await {
        let (client, email) = (pod.client(), new_email());
        let phone = client.sign_up(&email).await;
        client.sign_in(&email).await;
        let claims = json!({"sub": phone.user.to_string(), "exp": 4_102_444_800_u64});
        let without = Tokens { access: signed(pod.gotrue.secret, &claims), ..phone };
        assert_eq!(client.logout(&without, "?scope=local").await.status, StatusCode::NO_CONTENT);
        assert_eq!(pod.stored().await.len(), 0);
        pod.assert_true("logout without a session").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn reused_refresh_tokens_end_what_gotrue_ends() {
    for pod in pods().await {
        let client = pod.client();
        let first = client.sign_up(&new_email()).await;
        let second = Tokens::of(&client.refresh(&first).await);
        // The parent of the current token is honoured, and gets the current one again.
        let again = Tokens::of(&client.refresh(&first).await);
        assert_eq!(again.refresh, second.refresh);
        pod.assert_true("reuse that is allowed").await;
        let third = Tokens::of(&client.refresh(&second).await);
        Tokens::of(&client.refresh(&third).await);
        client.refresh(&first).await;
        pod.assert_true("reuse that may not be").await;
    }
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn an_applications_session_ends_with_its_grant() {
    for pod in pods().await {
        let client = pod.client();
        let application = admin(&pod).register_application().await;
        let phone = client.sign_up(&new_email()).await;
        let granted = Tokens::of(&client.grant(&phone, &application).await);
        assert_eq!(pod.record(granted.session).await["client_id"], application);
        assert!(!pod.record(phone.session).await.contains_key("client_id"));
        pod.assert_true("a grant").await;
        let refreshed = Tokens::of(&client.refresh_as(&application, &granted.refresh).await);
        assert_eq!(refreshed.session, granted.session);
        assert_eq!(pod.record(granted.session).await["client_id"], application);
        let refused = client.refresh_with(&refreshed.refresh).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        pod.assert_true("refreshes").await;
        assert_eq!(client.revoke_grant(&phone, &application).await.status, StatusCode::NO_CONTENT);
        assert_eq!(pod.stored().await.len(), 1);
        pod.assert_true("a grant taken back").await;
    }
}
