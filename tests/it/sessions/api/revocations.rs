//! What is revoked, what is not, and how GoTrue comes to know.

use super::*;

/// Threat: IDOR. Somebody else's session and one that nobody has get the same answer for the same work.
#[tokio::test]
async fn somebody_elses_session_and_an_unknown_one_cannot_be_told_apart() {
    let (mine, theirs, unknown) = (Login::new(NOW), Login::new(NOW), Login::new(NOW));
    let world = World::with_api().await;
    world.know(&[&mine, &theirs]).await;
    let mut redis = world.redis.client().await;
    let mut seen = Vec::new();
    for login in [&theirs, &unknown] {
        let (answer, stats, trips) = loop {
            let before = world.round_trips().await;
            let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut redis).await.unwrap();
            let answer = world.delete(&mine, &format!("/sessions/{}", login.session)).await;
            let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
            // the probe, which sets a key that is not there and runs a script, came in between
            if !stats.contains("cmdstat_set:") {
                break (answer, stats, world.round_trips().await - before);
            }
        };
        // what Redis was told to do, without how long it took
        let calls: Vec<_> = stats
            .lines()
            .filter(|line| !line.contains("info") && !line.contains("config") && !line.contains("client"))
            .filter(|line| !line.contains("ping"))
            .map(|line| line.split(',').next().unwrap().to_owned())
            .collect();
        let mut headers = answer.headers.clone();
        headers.remove("date");
        assert_eq!((answer.status.as_u16(), answer.error_code()), (404, Some("session_not_found")));
        seen.push((answer.body, headers.clone(), trips, calls));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].2, 2, "one to know who asks, one to revoke");
    assert!(world.is_live(&theirs).await);
    // nor does the attempt leave a key behind
    let keys: Vec<String> = redis::cmd("KEYS").arg("*revoked*").query_async(&mut redis).await.unwrap();
    assert_eq!(keys, [""; 0]);
}

#[tokio::test]
async fn a_revoked_session_is_gone_everywhere_and_a_second_attempt_finds_none() {
    let logins = sessions(3);
    let world = World::with_api().await;
    world.know(&logins.iter().collect::<Vec<_>>()).await;
    let target = format!("/sessions/{}", logins[2].session);
    let answer = world.delete(&logins[0], &target).await;
    assert_eq!((answer.status.as_u16(), answer.body.len(), answer.header("vary")), (204, 0, Some("Origin")));
    assert_eq!(world.state(&logins[2]).await, State::Revoked);
    assert_eq!(world.delete(&logins[0], &target).await.error_code(), Some("session_not_found"));
    let left: Vec<_> = [&logins[1], &logins[0]].map(|login| login.session.to_string()).into();
    assert_eq!(ids(&world.get(&logins[0], "/sessions").await), left);
    assert_eq!(world.get(&logins[2], "/sessions").await.error_code(), Some("session_not_found"));
    // GoTrue learns of it at that session's next refresh: nobody else's token is good for it
    assert_eq!(world.logouts(), []);
    world.counts("gotrue_sidecar_sessions_ended_total{reason=\"revoked\"}", 1).await;
}

#[tokio::test]
async fn a_session_revokes_itself_here_and_at_gotrue() {
    let logins = sessions(2);
    let unseen = Login { expires: NOW + 3600, ..Login::of(logins[0].user, NOW - 50) };
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1]]).await;
    for own in [&logins[0], &unseen] {
        assert_eq!(world.delete(own, &format!("/sessions/{}", own.session)).await.status, 204);
        assert_eq!(world.state(own).await, State::Revoked);
        let (scope, claims) = world.logouts().pop().unwrap();
        assert_eq!((scope.as_str(), &claims["session_id"]), ("local", &own.session.to_string().into()));
        // its token is worth nothing any more
        let again = world.delete(own, &format!("/sessions/{}", own.session)).await;
        assert_eq!((again.status.as_u16(), again.error_code()), (403, Some("session_not_found")));
    }
    assert!(world.is_live(&logins[1]).await);
}

#[tokio::test]
async fn others_spares_the_session_that_asks() {
    let logins = sessions(3);
    let neighbour = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1], &logins[2], &neighbour]).await;
    assert_eq!(world.delete(&logins[1], "/sessions?scope=others").await.status, 204);
    assert_eq!(ids(&world.get(&logins[1], "/sessions").await), [logins[1].session.to_string()]);
    assert!(world.is_live(&neighbour).await);
    let (scope, claims) = world.logouts().pop().unwrap();
    assert_eq!((scope.as_str(), &claims["session_id"]), ("others", &logins[1].session.to_string().into()));
}

#[tokio::test]
async fn global_ends_also_what_the_mirror_never_saw() {
    let logins = sessions(2);
    let unseen = Login::of(logins[0].user, NOW - 50);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1]]).await;
    assert_eq!(world.delete(&logins[0], "/sessions?scope=global").await.status, 204);
    for login in &logins {
        assert_eq!(world.state(login).await, State::Revoked);
    }
    let refreshed = unseen.refreshed(NOW + 1);
    let change = match recorded(&refreshed) {
        Change::Record { record, .. } => Change::Record { origin: Origin::Refresh, allowed_ms: None, record },
        other => other,
    };
    let outcome = world.store.apply(&[change], NOW + 1).await.unwrap();
    assert_eq!(outcome, [gotrue_sidecar::session::Outcome::Revoked]);
    assert_eq!(world.logouts().pop().unwrap().0, "global");
    assert_eq!(world.logouts().len(), 1);
}

/// The answer waits for GoTrue, so that the logout of a global revocation does not meet the sign-in after it.
#[tokio::test]
async fn whoever_signs_in_after_the_answer_is_not_logged_out_by_it() {
    use crate::support::upstream::Gate;
    let login = Login::new(NOW);
    let gate = Gate::new();
    let held = gate.clone();
    let world =
        World::with(&ON, move |seen| [Step::Until(held.clone())].into_iter().chain(gotrue(seen)).collect())
            .await;
    world.know(&[&login]).await;
    let asking = world.delete(&login, "/sessions?scope=global");
    tokio::pin!(asking);
    tokio::select! {
        _ = &mut asking => panic!("answered before GoTrue knew"),
        _ = world.upstream.arrived("POST /logout?scope=global") => {}
    }
    assert_eq!(world.state(&login).await, State::Revoked, "here it holds already");
    gate.open();
    assert_eq!(asking.await.status, 204);
}

#[tokio::test]
async fn a_gotrue_that_is_not_there_keeps_no_revocation_up() {
    let login = Login::new(NOW);
    let world = World::with(&ON, |_| vec![Step::Close]).await;
    world.know(&[&login]).await;
    assert_eq!(world.delete(&login, "/sessions?scope=global").await.status, 204);
    assert_eq!(world.state(&login).await, State::Revoked);
}

#[tokio::test]
async fn an_admin_revokes_one_or_all_of_anybody() {
    let logins = sessions(3);
    let neighbour = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1], &logins[2], &neighbour]).await;
    let (user, session) = (logins[0].user, logins[0].session);
    let one = format!("/admin/sessions/{session}?user_id={user}");
    let theirs = format!("/admin/sessions/{}?user_id={user}", neighbour.session);
    assert_eq!(world.as_admin(Method::DELETE, &one).await.status, 204);
    for gone in [&one, &theirs] {
        for method in [Method::GET, Method::DELETE] {
            let answer = world.as_admin(method, gone).await;
            assert_eq!((answer.status.as_u16(), answer.error_code()), (404, Some("session_not_found")));
        }
    }
    assert!(world.is_live(&logins[1]).await);
    let all = format!("/admin/users/{user}/sessions");
    assert_eq!(world.as_admin(Method::DELETE, &all).await.status, 204);
    assert_eq!(world.state(&logins[1]).await, State::Revoked);
    assert_eq!(ids(&world.as_admin(Method::GET, &all).await), [""; 0]);
    assert_eq!(world.as_admin(Method::DELETE, &all).await.status, 204, "all of nothing");
    assert!(world.is_live(&neighbour).await);
    assert_eq!(world.logouts(), [], "GoTrue learns of it at the next refresh");
    // every replica refuses the user from now on, whatever of theirs it had never seen
    let before = Login::of(user, NOW - 50);
    let refreshed = before.refreshed(NOW + 1);
    let Change::Record { record, .. } = recorded(&refreshed) else { unreachable!() };
    let change = Change::Record { origin: Origin::Refresh, allowed_ms: None, record };
    let outcome = world.store.apply(&[change], NOW + 1).await.unwrap();
    assert_eq!(outcome, [gotrue_sidecar::session::Outcome::Revoked]);
}

/// Contract §6.4.
#[tokio::test]
async fn minting_ends_in_gotrue_at_once_what_the_store_said_is_the_users() {
    let logins = sessions(3);
    let neighbour = Login::new(NOW);
    let world = World::minting().await;
    world.know(&[&logins[0], &logins[1], &logins[2], &neighbour]).await;
    let user = logins[0].user;
    // of a user's own: another device
    assert_eq!(world.delete(&logins[0], &format!("/sessions/{}", logins[1].session)).await.status, 204);
    // of an admin's: one, all
    let one = format!("/admin/sessions/{}?user_id={user}", logins[2].session);
    assert_eq!(world.as_admin(Method::DELETE, &one).await.status, 204);
    assert_eq!(world.as_admin(Method::DELETE, &format!("/admin/users/{user}/sessions")).await.status, 204);
    let logouts = world.logouts();
    let scopes: Vec<_> = logouts.iter().map(|(scope, _)| scope.as_str()).collect();
    assert_eq!(scopes, ["local", "local", "global"]);
    for ((_, claims), session) in logouts.iter().zip([Some(&logins[1]), Some(&logins[2]), None]) {
        assert_eq!(claims["sub"], user.to_string());
        assert_eq!(claims.get("session_id"), session.map(|login| login.session.to_string().into()).as_ref());
        assert_eq!(claims["exp"], NOW + 30);
        assert_eq!(claims["role"], "authenticated");
    }
    // GoTrue would not ask whose session it is: nothing is minted for somebody else's
    let theirs = neighbour.session;
    assert_eq!(world.delete(&Login::new(NOW), &format!("/sessions/{theirs}")).await.status, 404);
    let target = format!("/admin/sessions/{theirs}?user_id={user}");
    assert_eq!(world.as_admin(Method::DELETE, &target).await.status, 404);
    assert_eq!(world.logouts().len(), 3);
    assert!(world.is_live(&neighbour).await);
}

#[tokio::test]
async fn a_client_that_leaves_has_revoked_all_the_same() {
    let login = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&login]).await;
    world.redis.hang();
    let target = format!("{}/sessions?scope=global", world.sidecar.url);
    let request = Request::delete(target)
        .header("authorization", format!("Bearer {}", login.access(&world.signer)))
        .body(String::new())
        .unwrap();
    let asking = tokio::spawn(send(request));
    until("it is under way", async || world.count("gotrue_sidecar_http_requests_in_flight").await == 1).await;
    asking.abort();
    let _ = asking.await;
    world.redis.go_on();
    world.becomes(&login, |state| *state == State::Revoked).await;
    world.upstream.arrived("POST /logout?scope=global").await;
}

/// Issue: revoke-all of ten thousand is one round trip, and its time stands beside one session's: from the request to the
/// 204, and what of it Redis was busy with that one script, by its own clock.
#[tokio::test]
async fn ten_thousand_sessions_are_revoked_as_one_is() {
    const ROUNDS: usize = 3;
    let world = World::with_api().await;
    let () =
        world.redis(&["CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "10000"]).await;
    let mut took = std::collections::BTreeMap::<usize, Vec<[Duration; 2]>>::new();
    for (round, many) in (0..ROUNDS).flat_map(|round| [(round, 1), (round, 10_000)]) {
        let user = Login::new(NOW).user;
        let sessions: Vec<_> = (0..many).map(|_| Login::of(user, NOW - 100)).collect();
        for chunk in sessions.chunks(500) {
            world.know(&chunk.iter().collect::<Vec<_>>()).await;
        }
        let () = world.redis(&["SLOWLOG", "RESET"]).await;
        let (before, began) = (world.round_trips().await, std::time::Instant::now());
        let answer = world.as_admin(Method::DELETE, &format!("/admin/users/{user}/sessions")).await;
        let all = began.elapsed();
        assert_eq!((answer.status.as_u16(), world.round_trips().await - before), (204, 1), "{many}");
        took.entry(many).or_default().push([all, script_time(&world).await]);
        let listed = world.as_admin(Method::GET, &format!("/admin/users/{user}/sessions")).await;
        assert_eq!((ids(&listed).len(), listed.header("x-total-count")), (0, Some("0")), "{many}");
        assert_eq!(world.state(&sessions[many / 2]).await, State::Revoked);
        let ended = (round + 1) + if many == 1 { round * 10_000 } else { (round + 1) * 10_000 };
        world.counts("gotrue_sidecar_sessions_ended_total{reason=\"revoked\"}", ended).await;
    }
    for (many, mut took) in took {
        took.sort_unstable();
        let [all, in_redis] = took[ROUNDS / 2];
        println!(
            "{many} sessions of a user: revoked in {all:?}, {in_redis:?} of it in Redis (median of {ROUNDS})"
        );
    }
}

/// How long Redis took for the script that ends all of a user's sessions.
async fn script_time(world: &World) -> Duration {
    let entries: Vec<Vec<::redis::Value>> = world.redis(&["SLOWLOG", "GET", "10000"]).await;
    let ends = |entry: &&Vec<::redis::Value>| {
        let words: Vec<String> = ::redis::from_redis_value_ref(&entry[3]).unwrap();
        words[0].eq_ignore_ascii_case("evalsha") && words.iter().any(|word| word == "all")
    };
    let entry = entries.iter().find(ends).expect("the script is in the log");
    Duration::from_micros(::redis::from_redis_value_ref(&entry[2]).unwrap())
}
