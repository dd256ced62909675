//! Nobody waits for a store that does not work, and one call finds out that it works again.

use super::*;

/// How often the store was called for a request, and did not answer in time.
async fn called(replica: &Replica) -> u64 {
    counted(replica, "timeout").await
}

/// How often a request did without it.
async fn skipped(replica: &Replica) -> u64 {
    counted(replica, "skipped").await
}

async fn counted(replica: &Replica, result: &str) -> u64 {
    let mut sum = 0;
    for command in ["apply", "lookup"] {
        let series =
            format!(r#"gotrue_sidecar_store_commands_total{{command="{command}",result="{result}"}}"#);
        sum += replica.process.metric(&series).await;
    }
    sum
}

#[tokio::test]
async fn while_it_is_open_nobody_waits() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-timeout=2s", "--enforce=true"]).await;
    let before = replica.sign_in().await;
    redis.hang();
    replica.opens().await;
    let (calls, skips) = (called(&replica).await, skipped(&replica).await);
    let began = Instant::now();
    for _ in 0..20 {
        let tokens = replica.sign_in().await;
        assert_eq!(replica.client().user(&before).await.status, 200, "GoTrue decides");
        assert_eq!(replica.client().logout(&tokens, "").await.status, 204);
    }
    assert_eq!(called(&replica).await, calls, "sixty requests waited for the store");
    assert!(skipped(&replica).await >= skips + 60, "they did without it");
    assert!(began.elapsed() < TIMEOUT * 30, "sixty requests took {:?}", began.elapsed());
    replica.process.line("breaker open").await;
    redis.go_on();
    replica.closes().await;
    replica.process.line("breaker closed").await;
    assert_eq!(replica.process.count("breaker"), 2, "{}", replica.process.stderr());
}

#[tokio::test]
async fn half_open_it_lets_one_call_through() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut redis = RedisServer::start();
    let replica = Replica::start(&upstream, &redis, &["--store-timeout=10s"]).await;
    redis.kill();
    replica.opens().await;
    replica.relay.does(Does::Delay(Duration::from_millis(300)));
    redis.restart();
    let half_open = r#"gotrue_sidecar_store_breaker_transitions_total{to="half_open"}"#;
    eventually(
        || async { (replica.process.metric(half_open).await >= 1).then_some(()) },
        || replica.process.stderr(),
    )
    .await;
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let client = replica.client();
        clients.spawn(async move { client.sign_in("a@b.example").await });
    }
    let mut watched = 0;
    loop {
        let made = sign_ins_made(&redis).await;
        if replica.process.metric(OPEN).await == 0 {
            break;
        }
        assert!(made <= 1, "{made} sign-ins went through before one had come back");
        watched += 1;
    }
    assert!(watched > 0, "nobody was held back");
    clients.join_all().await;
}
