//! Logout, in the order of contract §6.1.

use super::*;
use crate::support::upstream::Gate;

const LOGOUT: &str = "/logout";

/// Whose gate the answers wait for.
fn held(gate: &Gate, bytes: Vec<u8>) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static {
    let gate = gate.clone();
    move |_| vec![Step::Until(gate.clone()), Step::Send(bytes.clone())]
}

#[tokio::test]
async fn a_logout_ends_its_own_session_before_gotrue_is_asked_and_the_others_after() {
    let own = Login::new(NOW);
    let (other, somebodys) = (Login::of(own.user, NOW), Login::new(NOW));
    let gate = Gate::new();
    let world = World::new(held(&gate, no_content())).await;
    world.know(&[&own, &other, &somebodys]).await;
    world.pass(5000);
    let asked_meanwhile = async {
        world.upstream.arrived("POST /logout").await;
        let states = (world.state(&own).await, world.is_live(&other).await);
        gate.open();
        states
    };
    let (answer, states) = tokio::join!(world.as_user(&own, Method::POST, LOGOUT, ""), asked_meanwhile);
    assert_eq!(states, (State::Revoked, true));
    assert_eq!(answer.status, 204);
    assert_eq!(world.state(&other).await, State::Revoked);
    assert!(world.is_live(&somebodys).await);
}

#[tokio::test]
async fn a_refused_logout_ends_no_more_than_its_own_session() {
    let refusals = [
        error("403 Forbidden", "bad_jwt"),
        error("403 Forbidden", "user_banned"),
        error("400 Bad Request", "validation_failed"),
        error("500 Internal Server Error", "unexpected_failure"),
        error("503 Service Unavailable", "x"),
        answer("200", &[], "")[..20].to_vec(), // breaks off in its head
    ];
    for refusal in refusals {
        let own = Login::new(NOW);
        let other = Login::of(own.user, NOW);
        let bytes = refusal.clone();
        let world = World::new(move |_| vec![Step::Send(bytes.clone()), Step::Close]).await;
        world.know(&[&own, &other]).await;
        let answer = world.as_user(&own, Method::POST, LOGOUT, "").await;
        assert!(answer.status.as_u16() >= 400);
        assert_eq!(world.state(&own).await, State::Revoked);
        let banned = String::from_utf8_lossy(&refusal).contains("user_banned");
        let left = world.state(&other).await;
        assert!(matches!(left, State::Live(_)) || banned && matches!(left, State::Suspended(_)), "{left:?}");
    }
}

/// GoTrue reads the query as Go does, and nothing but the query.
#[tokio::test]
async fn every_scope_ends_what_gotrue_ends() {
    const NEITHER: (bool, bool) = (true, true);
    const OWN: (bool, bool) = (false, true);
    const OTHERS: (bool, bool) = (true, false);
    const BOTH: (bool, bool) = (false, false);
    let table = [
        ("", BOTH),
        ("?", BOTH),
        ("?scope=", BOTH),
        ("?scope=global", BOTH),
        ("?scope=local", OWN),
        ("?scope=others", OTHERS),
        ("?scope=LOCAL", NEITHER),
        ("?scope=all", NEITHER),
        ("?scope=local&scope=global", OWN),
        ("?scope=global&scope=local", BOTH),
        ("?scope=%zz", BOTH),
        ("?x=1;scope=local", BOTH),
        ("?scope=%6Cocal", OWN),
        ("?sc%6Fpe=others", OTHERS),
        ("?Scope=local", BOTH),
        ("?scope", BOTH),
        ("?scope=local%20", NEITHER),
    ];
    let world = World::new(|seen: &Seen| {
        let refused = ["LOCAL", "all ", "local%20"]
            .iter()
            .any(|odd| seen.request_line().contains(&format!("scope={odd}")));
        let bytes = if refused { error("400 Bad Request", "validation_failed") } else { no_content() };
        vec![Step::Send(bytes)]
    })
    .await;
    for (query, left) in table {
        let own = Login::new(NOW);
        let other = Login::of(own.user, NOW);
        world.know(&[&own, &other]).await;
        world.pass(1);
        let body = r#"{"scope":"local"}"#; // which GoTrue ignores
        world.as_user(&own, Method::POST, &format!("{LOGOUT}{query}"), body).await;
        assert_eq!((world.is_live(&own).await, world.is_live(&other).await), left, "{query}");
    }
}

#[tokio::test]
async fn a_token_without_a_session_logs_out_everywhere_when_gotrue_agrees() {
    for query in ["", "?scope=local", "?scope=others"] {
        let login = Login::new(NOW);
        let world = World::new(always(no_content())).await;
        world.know(&[&login]).await;
        world.pass(1);
        let mut claims = login.claims();
        claims.as_object_mut().unwrap().remove("session_id");
        let token = world.signer.sign(&claims);
        world.with_token(&token, Method::POST, &format!("{LOGOUT}{query}"), "").await;
        assert_eq!(world.state(&login).await, State::Revoked, "{query}");
    }
}

/// Neither secret nor published keys: GoTrue's word is all there is.
#[tokio::test]
async fn without_any_key_gotrue_is_asked_first() {
    for (bytes, ends) in [(no_content(), true), (error("403 Forbidden", "bad_jwt"), false)] {
        let own = Login::new(NOW);
        let other = Login::of(own.user, NOW);
        let gate = Gate::new();
        let world =
            World::with(&["--store-ref-key", "0123456789abcdef0123456789abcdef"], held(&gate, bytes)).await;
        world.know(&[&own, &other]).await;
        let asked_meanwhile = async {
            world.upstream.arrived("POST /logout").await;
            let live = world.is_live(&own).await;
            gate.open();
            live
        };
        let logout = world.as_user(&own, Method::POST, "/logout?scope=local", "");
        let (_, live_meanwhile) = tokio::join!(logout, asked_meanwhile);
        assert!(live_meanwhile);
        assert_eq!(world.state(&own).await == State::Revoked, ends);
        assert!(world.is_live(&other).await);
    }
}

#[tokio::test]
async fn an_expired_token_ends_its_own_session_for_a_while() {
    let table = [
        ("1h", 3599, "", true),
        ("1h", 3600, "", false),
        ("1h", 10, "?scope=local", true),
        ("1h", 10, "?scope=others", false),
        ("1h", 10, "?scope=everywhere", false),
        ("0s", 0, "", false),
        ("5s", 4, "?scope=global", true),
    ];
    for (grace, late, query, ends) in table {
        let own = Login::new(NOW);
        let other = Login::of(own.user, NOW);
        let flags = ["--jwt-secret", SECRET, "--logout-expired-grace", grace];
        let world = World::with(&flags, always(error("403 Forbidden", "bad_jwt"))).await;
        world.know(&[&own, &other]).await;
        world.pass((3600 + late) * 1000);
        let answer = world.as_user(&own, Method::POST, &format!("{LOGOUT}{query}"), "").await;
        assert_eq!(answer.error_code(), Some("bad_jwt"));
        assert_eq!(world.state(&own).await == State::Revoked, ends, "{grace} {late} {query}");
        assert!(world.is_live(&other).await);
    }
}

#[tokio::test]
async fn a_login_answered_after_a_global_logout_was_forwarded_lives_and_one_before_dies() {
    let (own, gate) = (Login::new(NOW), Gate::new());
    let (before, after) = (Login::of(own.user, NOW), Login::of(own.user, NOW));
    let (logins, logout_held) = ([before.clone(), after.clone()], gate.clone());
    let world = World::new(move |seen: &Seen| {
        let signer = Signer::trusted();
        if seen.request_line().starts_with("POST /logout") {
            return vec![Step::Until(logout_held.clone()), Step::Send(no_content())];
        }
        let login = if seen.body == b"before" { &logins[0] } else { &logins[1] };
        vec![Step::Send(login.answer(&signer))]
    })
    .await;
    world.know(&[&own]).await;
    world.pass(10);
    world.post(PASSWORD, "before").await;
    world.pass(10);
    let meanwhile = async {
        world.upstream.arrived("POST /logout").await;
        world.pass(10); // the same second still
        world.post(PASSWORD, "after").await;
        gate.open();
    };
    tokio::join!(world.as_user(&own, Method::POST, LOGOUT, ""), meanwhile);
    assert_eq!(world.state(&own).await, State::Revoked);
    assert_eq!(world.state(&before).await, State::Revoked);
    assert!(world.is_live(&after).await);
}

/// A logout that was forwarded but whose sign-in is recorded only now, on whatever replica: what began
/// before is not written at all.
#[tokio::test]
async fn a_session_from_before_a_global_logout_is_not_written_back() {
    let own = Login::new(NOW);
    let old = Login::of(own.user, NOW - 100).refreshed(NOW);
    let bytes = old.answer(&Signer::trusted());
    let world = World::new(move |seen: &Seen| {
        let logout = seen.request_line().starts_with("POST /logout");
        vec![Step::Send(if logout { no_content() } else { bytes.clone() })]
    })
    .await;
    world.know(&[&own]).await;
    world.pass(2000);
    world.as_user(&own, Method::POST, LOGOUT, "").await;
    // it was never in the store, and GoTrue has not ended it: the answer was on its way
    let answer = world.refresh(&old).await;
    assert_eq!(answer.error_code(), Some("refresh_token_not_found"));
    assert!(!world.is_live(&old).await);
}

/// Of more sessions than Redis deals with at once; the answer waits for none of them, a drain does (I6).
#[tokio::test]
async fn a_logout_ends_any_number_of_sessions_and_counts_them() {
    const MANY: usize = 600;
    let own = Login::new(NOW);
    let world = World::new(|_| vec![Step::Send(no_content())]).await;
    world.know(&[&own]).await;
    let template = world.live(&own).await;
    let others: Vec<Login> = (0..MANY).map(|_| Login::of(own.user, NOW)).collect();
    for chunk in others.chunks(100) {
        let record = |login: &Login| Change::Record {
            origin: Origin::SignIn,
            allowed_ms: None,
            record: Box::new(Record { session: login.session, refresh_ref: None, ..template.clone() }),
        };
        world.store.apply(&chunk.iter().map(record).collect::<Vec<_>>(), NOW).await.unwrap();
    }
    world.pass(5000);
    assert_eq!(world.as_user(&own, Method::POST, LOGOUT, "").await.status, 204);
    for other in &others {
        assert_eq!(world.state(other).await, State::Revoked);
    }
    world.counts("gotrue_sidecar_sessions_ended_total{reason=\"logout\"}", MANY + 1).await;
    assert_eq!(world.count(r#"gotrue_sidecar_mirror_events_total{event="end",result="pending"}"#).await, 1);
    assert!(world.count(r#"gotrue_sidecar_store_commands_total{command="sweep",result="ok"}"#).await >= 2);
    let left: Vec<String> = {
        let mut redis = world.redis.client().await;
        redis::cmd("KEYS").arg("*:ending:*").query_async(&mut redis).await.unwrap()
    };
    assert_eq!(left, [""; 0]);
}
