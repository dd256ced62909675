//! How many sessions a user may have (contract §6.5): who is denied gets no tokens, and no session in GoTrue either; who
//! is evicted is revoked, here at once and in GoTrue as far as it can be told.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    model::gotrue::Gotrue,
    support::{pod::stored, process::Process},
};

const MEMORY: [&str; 2] = ["--store-url", "memory:"];
const MINT: [&str; 2] = ["--revoke-upstream", "mint"];
const ENFORCE: [&str; 2] = ["--enforce", "true"];

const REFUSED: &str = "gotrue_sidecar_refused_total{reason=\"too_many_sessions\"}";
const DENIED: &str = "gotrue_sidecar_sessions_ended_total{reason=\"denied\"}";
const EVICTED: &str = "gotrue_sidecar_sessions_ended_total{reason=\"evicted\"}";

const OLD_FORM: &str = r#"{"code":403,"error_code":"too_many_sessions","msg":"User has reached the maximum number of sessions"}"#;
const NEW_FORM: &str =
    r#"{"code":"too_many_sessions","message":"User has reached the maximum number of sessions"}"#;

fn cap<'a>(most: &'a str, policy: &'a str) -> [&'a str; 6] {
    ["--jwt-secret", SECRET, "--session-max-per-user", most, "--session-max-policy", policy]
}

/// A GoTrue with one user, who signs in again and again, and what it handed out.
#[derive(Clone)]
struct House {
    user: UserId,
    logins: Arc<Mutex<Vec<Login>>>,
}

impl House {
    fn new() -> Self {
        Self { user: Login::new(NOW).user, logins: Arc::default() }
    }

    fn login(&self, number: usize) -> Login {
        self.logins.lock().unwrap()[number].clone()
    }

    fn script(&self) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + Clone + 'static {
        let house = self.clone();
        move |seen| {
            let signer = Signer::trusted();
            let line = seen.request_line();
            let bytes = match line.split(['?', ' ']).nth(1).unwrap() {
                "/logout" => no_content(),
                "/user" => json("{}"),
                "/verify" if line.starts_with("GET") => house.redirect("303 See Other", &signer),
                "/callback" | "/sso/saml/acs" => house.redirect("302 Found", &signer),
                _ if line.contains("refresh_token") => house.refresh(seen, &signer),
                _ if line.contains("/factors/") => house.login(0).refreshed(NOW).answer(&signer),
                _ => house.sign_in().answer(&signer),
            };
            vec![Step::Send(bytes)]
        }
    }

    fn sign_in(&self) -> Login {
        let login = Login::of(self.user, NOW);
        self.logins.lock().unwrap().push(login.clone());
        login
    }

    fn redirect(&self, status: &str, signer: &Signer) -> Vec<u8> {
        let login = self.sign_in();
        let to = format!(
            "https://app.example/back?x=1#access_token={}&expires_in=3600&refresh_token={}&sb=&token_type=bearer",
            login.access(signer),
            login.refresh()
        );
        let session = login.session.to_string();
        let headers = [
            ("Location", to.as_str()),
            ("Content-Type", "text/html; charset=utf-8"),
            ("Sb-Auth-Session-Id", session.as_str()),
            ("Set-Cookie", "sb-access-token=canary"),
        ];
        answer(status, &headers, &format!("<a href=\"{to}\">See Other</a>.\n\n"))
    }

    fn refresh(&self, seen: &Seen, signer: &Signer) -> Vec<u8> {
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        let logins = self.logins.lock().unwrap();
        let login = logins.iter().find(|login| body["refresh_token"] == login.refresh()).unwrap();
        login.refreshed(NOW + 1).answer(signer)
    }
}

/// On Redis and on the embedded store.
async fn worlds(flags: &[&str]) -> Vec<(House, World)> {
    let mut worlds = Vec::new();
    for flags in [flags.to_vec(), [flags, &MEMORY].concat()] {
        let house = House::new();
        let world = World::with(&flags, house.script()).await;
        worlds.push((house, world));
    }
    worlds
}

impl World {
    async fn sign_in(&self) -> Answer {
        self.post(PASSWORD, "{}").await
    }

    async fn listed(&self, user: UserId) -> u64 {
        let page = Wanted::Page { skip: 0, take: 1000 };
        self.store.list(user, page, self.clock.seconds()).await.unwrap().total
    }
}

/// What GoTrue was told to end, by access token.
fn logouts(upstream: &Upstream) -> Vec<String> {
    let seen = upstream.seen().into_iter();
    let logouts = seen.filter(|seen| seen.request_line().starts_with("POST /logout?scope=local "));
    logouts.map(|seen| seen.header("authorization")[0].to_owned()).collect()
}

#[tokio::test]
async fn a_denied_login_gets_no_tokens_and_its_session_ends_in_gotrue() {
    for (version, form) in [(None, OLD_FORM), (Some("2024-01-01"), NEW_FORM)] {
        for (house, world) in worlds(&cap("1", "deny")).await {
            assert_eq!(world.sign_in().await.status, 200);
            let headers: Vec<_> =
                version.map(|version| ("x-supabase-api-version", version)).into_iter().collect();
            let refused = world.send(Method::POST, PASSWORD, &headers, "{}").await;
            assert_eq!((refused.status.as_u16(), refused.error_code()), (403, Some("too_many_sessions")));
            assert_eq!(refused.body, form);
            let [first, second] = [house.login(0), house.login(1)];
            world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
            assert_eq!(logouts(&world.upstream), [format!("Bearer {}", second.access(&world.signer))]);
            assert!(world.is_live(&first).await);
            assert_eq!(world.state(&second).await, State::Revoked);
            until("the tombstone knows that GoTrue knows", async || {
                let holder = holder(&world.store, &reference(&second), NOW).await.unwrap();
                holder.is_some_and(|holder| holder.ended_in_gotrue)
            })
            .await;
            for (series, expected) in [
                (REFUSED, 1),
                (DENIED, 1),
                (EVICTED, 0),
                ("gotrue_sidecar_mirror_events_total{event=\"sign_in\",result=\"denied\"}", 1),
            ] {
                assert_eq!(world.count(series).await, expected, "{series}");
            }
            // whoever has a session keeps it, and once it has ended another one may begin
            assert_eq!(world.as_user(&first, Method::GET, "/user", "").await.status, 200);
            assert_eq!(world.as_user(&first, Method::POST, "/logout?scope=local", "").await.status, 204);
            assert_eq!(world.sign_in().await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_redirect_with_tokens_that_are_denied_becomes_one_with_an_error() {
    for (method, target, status) in [
        (Method::GET, "/verify?type=magiclink&token=x", 303),
        (Method::GET, "/callback?code=x&state=y", 302),
        (Method::POST, "/callback", 302),
        (Method::POST, "/sso/saml/acs", 302),
    ] {
        for (house, world) in worlds(&cap("1", "deny")).await {
            let passed = world.send(method.clone(), target, &[], "").await;
            assert!(passed.header("location").unwrap().contains("#access_token="), "{passed:?}");
            let refused = world.send(method.clone(), target, &[("origin", "https://idp.example")], "").await;
            assert_eq!(refused.status, status, "{target}");
            assert_eq!(
                refused.header("location"),
                Some(
                    "https://app.example/back?x=1#error=access_denied&error_code=too_many_sessions\
                     &error_description=User+has+reached+the+maximum+number+of+sessions&sb="
                ),
            );
            assert_eq!(refused.body, "");
            for name in ["sb-auth-session-id", "set-cookie"] {
                assert_eq!(refused.header(name), None, "{target}");
            }
            assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
            world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
            let second = house.login(1);
            assert_eq!(logouts(&world.upstream), [format!("Bearer {}", second.access(&world.signer))]);
            assert_eq!(world.count(REFUSED).await, 1);
        }
    }
}

/// Every other way to tokens that are held back (GS §1.3).
#[tokio::test]
async fn every_way_to_sign_in_can_be_denied() {
    let house = House::new();
    let world = World::with(&cap("1", "deny"), house.script()).await;
    assert_eq!(world.sign_in().await.status, 200);
    for target in [
        "/token?grant_type=pkce",
        "/token?grant_type=id_token",
        "/token?grant_type=web3",
        "/signup",
        "/verify",
        "/oauth/token",
        "/passkeys/authentication/verify",
    ] {
        let refused = world.post(target, r#"{"grant_type":"authorization_code"}"#).await;
        assert_eq!(
            (refused.status.as_u16(), refused.error_code()),
            (403, Some("too_many_sessions")),
            "{target}"
        );
    }
    world.upstream.arrived_times("POST /logout?scope=local HTTP/1.1", 7).await;
}

#[tokio::test]
async fn what_is_no_new_session_is_never_denied() {
    for (house, world) in worlds(&cap("1", "deny")).await {
        world.sign_in().await;
        let first = house.login(0);
        assert_eq!(world.refresh(&first).await.status, 200);
        let target = "/factors/5e551040-0000-4000-8000-00000000000f/verify";
        assert_eq!(world.as_user(&first, Method::POST, target, "{}").await.status, 200);
        // of another session, which the store has lost, and whose client has been at it for long
        let lost = house.sign_in();
        assert_eq!(world.refresh(&lost).await.status, 200);
        assert_eq!(world.listed(house.user).await, 2);
        // an endpoint yet to come: its answer is not held back, so nobody can deny it
        assert_eq!(world.post("/sign-in/by-telepathy", "{}").await.status, 200);
        let third = house.login(2);
        world.becomes(&third, |state| matches!(state, State::Live(_))).await;
        assert_eq!(world.listed(house.user).await, 3);
        assert_eq!(world.sign_in().await.status, 403);
    }
}

#[tokio::test]
async fn whoever_made_room_is_refused_like_who_was_revoked() {
    for (house, world) in worlds(&[&cap("1", "evict_oldest")[..], &ENFORCE].concat()).await {
        world.sign_in().await;
        world.pass(1000);
        assert_eq!(world.sign_in().await.status, 200);
        let [old, new] = [house.login(0), house.login(1)];
        assert_eq!(world.state(&old).await, State::Revoked);
        let refused = world.as_user(&old, Method::GET, "/user", "").await;
        assert_eq!((refused.status.as_u16(), refused.error_code()), (403, Some("session_not_found")));
        let bearer = format!("Bearer {}", old.access(&world.signer));
        let check =
            Request::get(format!("http://{}/check", world.sidecar.admin)).header("authorization", bearer);
        assert_eq!(send(check.body(String::new()).unwrap()).await.unwrap().status, 403);
        assert!(logouts(&world.upstream).is_empty(), "GoTrue was told");
        // before GoTrue answers, and then it is ended there
        let refused = world.refresh(&old).await;
        assert_eq!((refused.status.as_u16(), refused.error_code()), (400, Some("refresh_token_not_found")));
        world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
        assert_eq!(world.as_user(&new, Method::GET, "/user", "").await.status, 200);
        assert_eq!(world.count(EVICTED).await, 1);
    }
}

/// Without `enforce`, and without two more round trips for every refresh (§6.3).
#[tokio::test]
async fn whoever_made_room_ends_in_gotrue_at_the_next_refresh() {
    for (house, world) in worlds(&cap("1", "evict_oldest")).await {
        world.sign_in().await;
        world.sign_in().await;
        let live = world.is_live(&house.login(0)).await;
        let old = house.login(usize::from(live)); // of one millisecond the id decides
        assert_eq!(world.refresh(&old).await.error_code(), Some("refresh_token_not_found"));
        world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
        let renewed = old.refreshed(NOW + 1).access(&world.signer);
        assert_eq!(logouts(&world.upstream), [format!("Bearer {renewed}")]);
    }
}

/// Contract §6.4.
#[tokio::test]
async fn minting_ends_in_gotrue_at_once_whoever_made_room() {
    for (house, world) in worlds(&[&cap("2", "evict_oldest")[..], &MINT].concat()).await {
        for _ in 0..3 {
            assert_eq!(world.sign_in().await.status, 200);
            world.pass(1000);
        }
        let logout = world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
        let token = logout.header("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned();
        let claims: serde_json::Value = {
            use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
            serde_json::from_slice(&BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
        };
        assert_eq!(claims["session_id"], house.login(0).session.to_string());
        assert_eq!(claims["sub"], house.user.to_string());
        assert_eq!(logouts(&world.upstream).len(), 1);
    }
}

/// Contract I5: what the store is not asked about passes, and is recorded when it is back.
#[tokio::test]
async fn a_store_that_is_away_denies_nobody() {
    let house = House::new();
    let flags = [&cap("1", "deny")[..], &["--store-timeout", "1s"]].concat();
    let world = World::with(&flags, house.script()).await;
    assert_eq!(world.sign_in().await.status, 200);
    world.redis.hang();
    for _ in 0..2 {
        assert_eq!(world.sign_in().await.status, 200);
    }
    world.redis.go_on();
    world.counts("gotrue_sidecar_mirror_replayed_total{result=\"written\"}", 2).await;
    until("all are there", async || world.listed(house.user).await == 3).await;
    for number in 0..3 {
        assert!(world.is_live(&house.login(number)).await, "{number}");
    }
    let open = "gotrue_sidecar_store_breaker_open";
    until("the store is asked again", async || world.count(open).await == 0).await;
    assert_eq!(world.sign_in().await.status, 403);
    assert_eq!(world.count(DENIED).await, 1);
}

#[tokio::test]
async fn a_cap_that_comes_late_is_reached_behind_the_answer() {
    let house = House::new();
    let world = World::with(&["--jwt-secret", SECRET], house.script()).await;
    let old: Vec<_> = (0..600).map(|_| house.sign_in()).collect();
    world.know(&old.iter().collect::<Vec<_>>()).await;
    world.pass(1000);
    let capped = another(&world.redis, &world.upstream, &world.clock, &cap("3", "evict_oldest"));
    let answer = send_through(&capped, Method::POST, PASSWORD, &[], "{}").await;
    assert_eq!(answer.status, 200);
    until("only three are left", async || world.listed(house.user).await == 3).await;
    assert!(world.is_live(&house.login(600)).await, "the new one");
    until("all were counted", async || sample(capped.admin, EVICTED).await == "598").await;
}

/// Contract §6.5: exact, however many come at once, through whichever replica.
#[tokio::test]
async fn of_a_hundred_logins_at_once_on_two_replicas_as_many_as_may_be_are_left() {
    const MOST: usize = 7;
    for policy in ["deny", "evict_oldest"] {
        let gotrue = Arc::new(Gotrue::new(&Clock::standing_at(NOW_MS)));
        let model = Arc::clone(&gotrue);
        let flags = [&cap("7", policy)[..], &MINT].concat();
        let world = World::with(&flags, move |seen| vec![Step::Send(model.commit(seen))]).await;
        let replica = another(&world.redis, &world.upstream, &world.clock, &flags);
        let user = Login::new(NOW).user;
        let body = format!(r#"{{"user":"{user}"}}"#);
        let mut all = tokio::task::JoinSet::new();
        for number in 0..100 {
            let through = if number % 2 == 0 { &world.sidecar } else { &replica };
            let request = Request::post(format!("{}{PASSWORD}", through.url)).body(body.clone()).unwrap();
            all.spawn(async move { send(request).await.unwrap() });
        }
        let mut statuses = [0, 0];
        for answer in all.join_all().await {
            match answer.status.as_u16() {
                200 => statuses[0] += 1,
                403 if answer.error_code() == Some("too_many_sessions") => statuses[1] += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(statuses, if policy == "deny" { [MOST, 100 - MOST] } else { [100, 0] });
        assert_eq!(world.listed(user).await, MOST as u64);
        let series = if policy == "deny" { DENIED } else { EVICTED };
        let counted =
            world.count(series).await + sample(replica.admin, series).await.parse::<usize>().unwrap();
        assert_eq!(counted, 100 - MOST, "{policy}");
        // GoTrue has those that the store has, and was told of each of the others
        until("GoTrue has ended the others", async || gotrue.sessions().len() == MOST).await;
        let kept: Vec<_> =
            stored(&mut world.redis.client().await).await.into_iter().map(|it| it.session).collect();
        assert_eq!(kept, gotrue.sessions().into_keys().collect::<Vec<_>>(), "{policy}");
        assert_eq!(logouts(&world.upstream).len(), 100 - MOST, "{policy}");
    }
}

#[tokio::test]
async fn whoever_is_evicted_or_denied_has_an_audit_line() {
    for (policy, gone, words) in [
        ("evict_oldest", 0, ["\"sessions ended\"", "\"reason\":\"evicted\"", "\"result\":\"ended\""]),
        (
            "deny",
            1,
            ["\"a sign-in was denied\"", "\"reason\":\"too_many_sessions\"", "\"result\":\"denied\""],
        ),
    ] {
        let (house, redis) = (House::new(), RedisServer::start());
        let upstream = Upstream::start(house.script()).await;
        let (upstream, store) =
            (format!("--upstream-url={}", upstream.url), format!("--store-url={}", redis.url()));
        let flags = [&cap("1", policy)[..], &[&upstream, &store, "--store-timeout=10s"]].concat();
        let process = Process::start(&flags).await;
        for number in 0..2 {
            let request = Request::post(format!("{}{PASSWORD}", process.url)).header("x-request-id", number);
            send(request.body("{}".to_owned()).unwrap()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await; // of one millisecond the id decides
        }
        let line = process.line(words[0]).await;
        let session = house.login(gone).session;
        let about = format!("\"session\":\"{session}\"");
        for word in words.iter().chain(&[about.as_str(), "\"target\":\"audit\"", "\"request_id\":\"1\""]) {
            assert!(line.contains(word), "{word} in {line}");
        }
        assert_eq!(process.count(words[0]), 1);
        assert!(!process.stderr().contains("eyJ"), "a token");
    }
}
