//! The end of the process while changes wait: they are written if the store comes back in time, else it says what
//! was lost.

use rustix::process::Signal;

use super::*;

async fn sessions(redis: &RedisServer) -> usize {
    let keys: Vec<String> =
        ::redis::cmd("KEYS").arg("*:session:*").query_async(&mut redis.client().await).await.unwrap();
    keys.len()
}

#[tokio::test]
async fn what_waits_is_written_before_the_end() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let mut replica = Replica::start(&upstream, &redis, &["--drain-deadline=10m"]).await;
    redis.hang();
    replica.opens().await;
    let waiting = replica.process.metric("gotrue_sidecar_mirror_queue_length").await;
    replica.process.signal(Signal::TERM);
    replica.process.line("Closing").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!replica.process.has_ended(), "it did not wait for the store");
    redis.go_on();
    assert_eq!(replica.process.ended().await.code(), Some(0), "{}", replica.process.stderr());
    assert!(sessions(&redis).await as u64 >= waiting);
}

#[tokio::test]
async fn what_cannot_be_written_by_the_deadline_is_told() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let mut replica = Replica::start(&upstream, &redis, &["--drain-deadline=300ms"]).await;
    redis.hang();
    let tokens = [replica.sign_in().await, replica.sign_in().await];
    assert_eq!(replica.client().logout(&tokens[0], "?scope=local").await.status, 204);
    replica.process.signal(Signal::TERM);
    assert_eq!(replica.process.ended().await.code(), Some(1));
    for kind in ["creation", "ending"] {
        let words = format!(r#""kind":"{kind}","count":1"#);
        let line = replica.process.line(&words).await;
        assert!(line.contains(r#""level":"error""#) && line.contains("before the end"), "{line}");
    }
    // the logout's login, and that its user was not banned
    assert!(replica.process.line("ended before everything").await.contains(r#""left":"#));
    redis.go_on();
}
