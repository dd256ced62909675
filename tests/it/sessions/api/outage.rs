//! A store that does not answer (contract §9): 503, never a 204 that does not hold, and nothing half done.

use super::*;

fn requests(logins: &[Login]) -> Vec<(bool, Method, String)> {
    let (user, session) = (logins[0].user, logins[1].session);
    vec![
        (false, Method::GET, "/sessions".to_owned()),
        (false, Method::DELETE, format!("/sessions/{session}")),
        (false, Method::DELETE, "/sessions?scope=others".to_owned()),
        (false, Method::DELETE, "/sessions?scope=global".to_owned()),
        (true, Method::GET, format!("/admin/users/{user}/sessions")),
        (true, Method::DELETE, format!("/admin/users/{user}/sessions")),
        (true, Method::GET, format!("/admin/sessions/{session}?user_id={user}")),
        (true, Method::DELETE, format!("/admin/sessions/{session}?user_id={user}")),
    ]
}

/// Threat: an outage must not answer that a session is revoked, or that there is none.
#[tokio::test]
async fn without_the_store_nothing_is_answered_but_that() {
    let logins = sessions(2);
    let mut world = World::with(&[&ON[..], &["--store-timeout", "100ms"]].concat(), gotrue).await;
    world.know(&[&logins[0], &logins[1]]).await;
    for refuses in [false, true] {
        if refuses {
            world.redis.go_on();
            world.redis.kill();
        } else {
            world.redis.hang();
        }
        for (admin, method, target) in requests(&logins) {
            let answer = if admin {
                world.as_admin(method, &target).await
            } else {
                world.as_user(&logins[0], method, &target, "").await
            };
            assert_eq!(
                (answer.status.as_u16(), answer.error_code()),
                (503, Some("service_unavailable")),
                "{target}"
            );
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(answer.json()["msg"], "The session store cannot be reached");
        }
    }
    assert!(world.upstream.seen().is_empty(), "GoTrue was told of what did not happen");
}

/// Threat: a full Redis. An end gets in even then; a revocation that does not is never a 204.
#[tokio::test]
async fn a_full_redis_takes_revocations() {
    let logins = sessions(2);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1]]).await;
    let mut redis = world.redis.client().await;
    let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").query_async(&mut redis).await.unwrap();
    let answer = world.delete(&logins[0], &format!("/sessions/{}", logins[1].session)).await;
    assert_eq!(answer.status, 204);
    assert_eq!(world.state(&logins[1]).await, State::Revoked);
    assert_eq!(ids(&world.get(&logins[0], "/sessions").await), [logins[0].session.to_string()]);
}

#[tokio::test]
async fn a_read_only_redis_lists_and_does_not_revoke() {
    let logins = sessions(2);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1]]).await;
    let mut redis = world.redis.client().await;
    let () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").query_async(&mut redis).await.unwrap();
    let answer = world.delete(&logins[0], &format!("/sessions/{}", logins[1].session)).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(ids(&world.get(&logins[0], "/sessions").await).len(), 2);
    let () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut redis).await.unwrap();
    assert!(world.is_live(&logins[1]).await);
}
