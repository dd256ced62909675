//! What the mirror cannot see (docs/mirror.md): for each, how it drifts from GoTrue, and what repairs it.

use super::*;
use crate::support::upstream::Gate;

const FACTOR: &str = "/factors/5e551040-0000-4000-8000-00000000000f";

/// What the upstream answers next; a test changes it as it goes.
#[derive(Clone, Default)]
struct Next(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Next {
    fn is(&self, bytes: Vec<u8>) {
        *self.0.lock().unwrap() = bytes;
    }

    async fn world(&self) -> World {
        let next = self.clone();
        World::new(move |_: &Seen| vec![Step::Send(next.0.lock().unwrap().clone())]).await
    }
}

/// GoTrue's two ways to say that it does not know the session.
async fn is_found_out(world: &World, next: &Next, login: &Login, by_refresh: bool) {
    if by_refresh {
        next.is(error("400 Bad Request", "refresh_token_not_found"));
        world.refresh(login).await;
    } else {
        next.is(error("403 Forbidden", "session_not_found"));
        world.as_user(login, Method::GET, "/user", "").await;
    }
    world.becomes(login, |state| *state == State::Revoked).await;
}

/// An opaque refresh token, no header of GoTrue's, and a token whose `session_id` a hook made up.
#[tokio::test]
async fn a_session_that_a_hook_invented_ends_at_its_first_use() {
    let (real, invented, next) = (Login::new(NOW), Login::new(NOW), Next::default());
    let world = next.world().await;
    let invented = Login { user: real.user, ..invented };
    let body = invented.body(&world.signer).replace(&invented.refresh(), "abcdefghijkl");
    next.is(json(&body));
    world.post(PASSWORD, "{}").await;
    assert!(world.is_live(&invented).await);
    assert_eq!(world.state(&real).await, State::Unknown);
    is_found_out(&world, &next, &invented, false).await;
}

/// A password hook, an invitation and a minted token end sessions in GoTrue without a word of whose.
#[tokio::test]
async fn an_ending_that_names_nobody_is_found_out_at_the_next_use() {
    for by_refresh in [false, true] {
        let (victim, next) = (Login::new(NOW), Next::default());
        let world = next.world().await;
        world.know(&[&victim]).await;
        world.pass(1000);
        // the hook: wrong password, and the user is logged out
        next.is(error("400 Bad Request", "invalid_credentials"));
        world.post(PASSWORD, r#"{"email":"a@example.com","password":"x"}"#).await;
        // the invitation: a new session, and older ones end
        let invited = Login::of(victim.user, NOW + 1);
        next.is(invited.answer(&world.signer));
        world.post("/verify", r#"{"type":"invite","token_hash":"x"}"#).await;
        // the minted token: GoTrue ends the session, whosever it is
        next.is(no_content());
        let stranger = Login::new(NOW);
        let minted = Login { user: stranger.user, ..victim.clone() };
        world.as_user(&minted, Method::POST, "/logout?scope=local", "").await;

        assert!(world.is_live(&victim).await, "the drift");
        is_found_out(&world, &next, &victim, by_refresh).await;
        assert!(world.is_live(&invited).await);
    }
}

#[tokio::test]
async fn a_session_that_ended_only_here_ends_in_gotrue_at_its_next_refresh() {
    for expired in [true, false] {
        let (login, next) = (Login::new(NOW), Next::default());
        let world = next.world().await;
        world.know(&[&login]).await;
        let (late, refusal) =
            if expired { (3600, error("403 Forbidden", "bad_jwt")) } else { (1, error("500 No", "no")) };
        world.pass(late * 1000);
        next.is(refusal);
        assert!(world.as_user(&login, Method::POST, "/logout", "").await.status.as_u16() >= 400);
        assert_eq!(world.state(&login).await, State::Revoked, "the drift");
        let renewed = login.refreshed(NOW + late);
        next.is(renewed.answer(&world.signer));
        assert_eq!(world.refresh(&login).await.error_code(), Some("refresh_token_not_found"));
        let logout = world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
        assert_eq!(logout.header("authorization"), [format!("Bearer {}", renewed.access(&world.signer))]);
    }
}

#[tokio::test]
async fn a_level_that_a_hook_rewrites_is_the_hooks_until_it_stops() {
    let (login, next) = (Login::new(NOW), Next::default());
    let world = next.world().await;
    next.is(Login { aal: "aal2", ..login.clone() }.answer(&world.signer));
    world.post(PASSWORD, "{}").await;
    let level = async || world.live(&login).await.aal.map(gotrue_sidecar::session::Aal::as_str);
    assert_eq!(level().await, Some("aal2"), "the drift");
    next.is(login.refreshed(NOW + 1).answer(&world.signer));
    world.refresh(&login).await;
    assert_eq!(level().await, Some("aal1"));
}

/// The user or an admin removes a factor: the level falls where the factor is known to have raised it, the
/// methods stay, and the next refresh says how it is. Before v2.193.0 an admin's removal lowered nothing.
#[tokio::test]
async fn a_removed_factor_shows_in_full_at_the_next_refresh() {
    for (by_admin, seen, gotrue) in
        [(false, true, "aal1"), (false, false, "aal1"), (true, true, "aal1"), (true, true, "aal2")]
    {
        let (login, next) = (Login::new(NOW), Next::default());
        let world = next.world().await;
        let raised = Login { aal: "aal2", ..login.refreshed(NOW) };
        next.is(raised.answer(&world.signer));
        if seen {
            world.know(&[&login]).await;
            world.as_user(&login, Method::POST, &format!("{FACTOR}/verify"), "{}").await;
        } else {
            world.refresh(&login).await;
        }
        let methods = world.live(&login).await.amr;
        next.is(json("{}"));
        let target =
            if by_admin { format!("/admin/users/{}{FACTOR}", login.user) } else { FACTOR.to_owned() };
        world.as_user(&raised, Method::DELETE, &target, "").await;
        let record = world.live(&login).await;
        let level = record.aal.map(gotrue_sidecar::session::Aal::as_str);
        assert_eq!(level, Some(if seen { "aal1" } else { "aal2" }), "{by_admin} {seen} {gotrue}");
        assert_eq!(record.amr, methods, "the drift");

        let renewed = Login { aal: gotrue, ..raised.refreshed(NOW + 1) };
        next.is(renewed.answer(&world.signer));
        world.refresh(&raised).await;
        let record = world.live(&login).await;
        assert_eq!(record.aal.map(gotrue_sidecar::session::Aal::as_str), Some(gotrue));
        assert_eq!(record.amr.as_deref(), Some("password"));
    }
}

/// One session has its second factor already, another gets it, and both verify one at the same time. GoTrue
/// keeps both; here the answer that comes first may end the other, which then ends in GoTrue, too.
#[tokio::test]
async fn two_factors_verified_at_once_may_cost_the_session_that_is_raised() {
    for raised_first in [false, true] {
        let old = Login { aal: "aal2", ..Login::new(NOW) };
        let young = Login::of(old.user, NOW);
        let gates = [Gate::new(), Gate::new()];
        let (held, young_access) = (gates.clone(), young.access(&Signer::trusted()));
        let again = old.refreshed(NOW + 1);
        let raised = Login { aal: "aal2", ..young.refreshed(NOW + 1) };
        let answers = [&again, &raised].map(|login| login.answer(&Signer::trusted()));
        let world = World::new(move |seen: &Seen| {
            if seen.request_line().starts_with("POST /logout") {
                return vec![Step::Send(no_content())];
            }
            let which = usize::from(seen.header("authorization")[0].contains(&young_access));
            vec![Step::Until(held[which].clone()), Step::Send(answers[which].clone())]
        })
        .await;
        world.know(&[&old, &young]).await;
        world.pass(1000);
        let target = format!("{FACTOR}/verify");
        let refreshes = "gotrue_sidecar_mirror_events_total{event=\"refresh\",result=\"refreshed\"}";
        let (of_old, of_young, ()) = tokio::join!(
            world.as_user(&old, Method::POST, &target, "{}"),
            world.as_user(&young, Method::POST, &target, "{}"),
            async {
                world.upstream.arrived_times(&format!("POST {FACTOR}"), 2).await;
                gates[usize::from(raised_first)].open();
                world.counts(refreshes, 1).await;
                gates[usize::from(!raised_first)].open();
            }
        );
        assert_eq!(of_old.status, 200);
        assert!(world.is_live(&old).await);
        if raised_first {
            assert_eq!(of_young.status, 200);
            assert!(world.is_live(&young).await);
        } else {
            assert_eq!(of_young.error_code(), Some("session_not_found"), "the drift");
            assert_eq!(world.state(&young).await, State::Revoked);
            let logout = world.upstream.arrived("POST /logout?scope=local").await;
            assert_eq!(logout.header("authorization"), [format!("Bearer {}", raised.access(&world.signer))]);
        }
    }
}

/// Time-box, inactivity and single session per user: a refusal that may not be the last word (GS §9).
#[tokio::test]
async fn a_session_that_gotrue_calls_expired_lives_on_as_it_does_there() {
    let (login, next) = (Login::new(NOW), Next::default());
    let world = next.world().await;
    world.know(&[&login]).await;
    next.is(error("400 Bad Request", "session_expired"));
    assert_eq!(world.refresh(&login).await.error_code(), Some("session_expired"));
    assert!(world.is_live(&login).await);
    let renewed = login.refreshed(NOW + 1);
    next.is(renewed.answer(&world.signer));
    world.refresh(&login).await;
    assert_eq!(world.live(&login).await.refresh_ref, Some(reference(&renewed)));
}

/// GoTrue throws the tokens away: there is nothing to see, and nobody has the session.
#[tokio::test]
async fn a_session_whose_tokens_nobody_gets_is_not_there() {
    let (login, next) = (Login::new(NOW), Next::default());
    let world = next.world().await;
    let (user, session) = (login.user.to_string(), login.session.to_string());
    let headers = [
        ("Content-Type", "application/json"),
        ("Sb-Auth-User-Id", user.as_str()),
        ("Sb-Auth-Session-Id", session.as_str()),
    ];
    for (status, target) in
        [("200 OK", "/otp"), ("400 Bad Request", "/signup"), ("302 Found", "/sso/saml/acs")]
    {
        next.is(answer(status, &headers, "{}"));
        world.post(target, "{}").await;
        assert_eq!(world.state(&login).await, State::Unknown, "{target}");
    }
}
