//! Answers of an upstream that is on the forger's side, or mixes its users up.

use super::super::*;

/// Somebody signs in and gets another's tokens: that is GoTrue's doing. What the answer cannot do is
/// to end or move a session that is there.
#[tokio::test]
async fn an_answer_with_somebody_elses_token_takes_no_session_over() {
    let signer = Signer::trusted();
    let (own, victim) = (Login::new(NOW), Login::new(NOW));
    // the victim's session in the name of the attacker, and the other way round
    let mut claims = own.claims();
    claims["session_id"] = victim.session.to_string().into();
    let mixed = own.body(&signer).replace(&own.access(&signer), &signer.sign(&claims));
    let world = World::new(always(json(&mixed))).await;
    world.know(&[&victim]).await;
    let before = world.live(&victim).await;
    for target in [PASSWORD, REFRESH, "/verify"] {
        world.post(target, &refresh_body(&own)).await;
        assert_eq!(world.live(&victim).await, before);
        assert_eq!(world.state_of(own.user, victim.session).await, State::Unknown);
    }
    assert_eq!(world.dropped("contradiction").await, 3);
}

/// To whatever it answers with somebody's tokens, GoTrue is asked in somebody else's name. Where the request
/// itself says whose it is, nothing is written; elsewhere the answer is never taken for one that hands out
/// tokens.
#[tokio::test]
async fn an_answer_with_tokens_of_another_session_than_was_asked_for_changes_nothing() {
    let signer = Signer::trusted();
    let (own, victim) = (Login::new(NOW), Login::new(NOW));
    let others = Login { aal: "aal2", ..victim.refreshed(NOW + 1) };
    let factor = "/factors/5e551040-0000-4000-8000-00000000000f/verify";
    let table = [
        ("POST", REFRESH, 1), // a v2 token names its session
        ("POST", "/oauth/token", 1),
        ("POST", factor, 1),
        ("POST", "/factors/recovery-codes/verify", 1),
        ("GET", "/user", 0),
        ("PUT", "/user", 0),
        ("POST", "/factors", 0),
        ("GET", "/admin/users", 0),
    ];
    for (method, target, counted) in table {
        let world = World::new(always(others.answer(&signer))).await;
        world.know(&[&own, &victim]).await;
        world.pass(1000);
        let before = (world.live(&own).await, world.live(&victim).await);
        let body = format!(r#"{{"grant_type":"refresh_token","refresh_token":"{}"}}"#, own.refresh());
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let bearer = format!("Bearer {}", own.access(&signer));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = world.send(method, target, &headers, &body).await;
        assert_eq!(answer.body, others.body(&signer), "{target}");
        world.counts(&dropped("contradiction"), counted).await;
        let after = (world.live(&own).await, world.live(&victim).await);
        let unseen =
            |(own, victim): (Record, Record)| [own, victim].map(|record| Record { seen_at: None, ..record });
        assert_eq!(unseen(after), unseen(before), "{target}");
        assert_eq!(world.dropped("contradiction").await, counted, "{target}");
    }
}

/// An opaque refresh token names nobody, so GoTrue's answer stands; the session that was known by that token
/// is none of its business.
#[tokio::test]
async fn an_answer_to_an_opaque_token_leaves_the_session_known_by_it_alone() {
    let signer = Signer::trusted();
    let (own, other) = (Login::new(NOW), Login::new(NOW));
    let opaque = |login: &Login, token: &str| json(&login.body(&signer).replace(&login.refresh(), token));
    let answers = [opaque(&own, "aaaaaaaaaaaa"), opaque(&other.refreshed(NOW + 1), "bbbbbbbbbbbb")];
    let world = World::new(move |seen: &Seen| {
        let refresh = seen.request_line().contains("refresh_token");
        vec![Step::Send(answers[usize::from(refresh)].clone())]
    })
    .await;
    world.post(PASSWORD, "{}").await;
    world.know(&[&other]).await;
    world.pass(1000);
    let before = world.live(&own).await;
    world.post(REFRESH, r#"{"refresh_token":"aaaaaaaaaaaa"}"#).await;
    assert_eq!(world.live(&own).await, before);
    assert_eq!(world.live(&other).await.refreshed_at, NOW + 1);
}

/// A logout ends what its own token names, whatever tokens its answer carries.
#[tokio::test]
async fn an_answer_with_somebody_elses_token_to_a_logout_ends_the_callers_session_only() {
    let signer = Signer::trusted();
    let (own, victim) = (Login::new(NOW), Login::new(NOW));
    let world = World::new(always(victim.refreshed(NOW + 1).answer(&signer))).await;
    world.know(&[&own, &victim]).await;
    world.pass(1000);
    let before = world.live(&victim).await;
    world.as_user(&own, Method::POST, "/logout", "").await;
    assert_eq!(world.state(&own).await, State::Revoked);
    assert_eq!(world.live(&victim).await, before);
}

/// GoTrue says that a token was used twice and names a session; the token itself names another.
#[tokio::test]
async fn a_refusal_that_contradicts_the_token_ends_nobodys_session() {
    let (own, victim) = (Login::new(NOW), Login::new(NOW));
    let (user, session) = (victim.user.to_string(), victim.session.to_string());
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Sb-Error-Code", "refresh_token_already_used"),
        ("Sb-Auth-User-Id", user.as_str()),
        ("Sb-Auth-Session-Id", session.as_str()),
        ("Sb-Auth-Refresh-Token-Rotated", "true"),
    ];
    let world = World::new(always(answer("400 Bad Request", &headers, "{}"))).await;
    world.know(&[&own, &victim]).await;
    world.pass(1);
    world.refresh(&own).await;
    assert!(world.is_live(&own).await && world.is_live(&victim).await);
    assert_eq!(world.dropped("contradiction").await, 1);
    // while it agrees, the session ends
    world.refresh(&victim).await;
    assert_eq!(world.state(&victim).await, State::Revoked);
}
