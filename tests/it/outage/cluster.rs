//! A Cluster that has lost a part: only whose sessions are there have to wait.

use super::*;
use crate::support::redis_cluster::RedisCluster;

/// Parts of a Cluster, each with a breaker of its own.
const LANES: u64 = 64;

struct Shop {
    cluster: RedisCluster,
    process: Process,
    _upstream: Upstream,
}

impl Shop {
    async fn open(timeout: Duration) -> Self {
        Self::open_with(timeout, &[]).await
    }

    async fn open_with(timeout: Duration, more: &[&str]) -> Self {
        let (upstream, cluster) = (Upstream::start(issuer::gotrue).await, RedisCluster::start().await);
        let flags = [
            format!("--upstream-url={}", upstream.url),
            format!("--store-url={}", cluster.url()),
            format!("--jwt-secret={SECRET}"),
            "--jwt-jwks=off".to_owned(),
            format!("--store-timeout={}ms", timeout.as_millis()),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let process = Process::start(&flags).await;
        process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        Self { cluster, process, _upstream: upstream }
    }

    /// Signs in until so many live at a master.
    async fn sign_in_at(&self, master: usize, count: usize) -> Vec<Tokens> {
        let mut there = Vec::new();
        while there.len() < count {
            let tokens = Client::new(&self.process.url).sign_in("a@b.example").await;
            if self.master_of(tokens.user).await == master {
                there.push(tokens);
            }
        }
        there
    }

    async fn master_of(&self, user: UserId) -> usize {
        self.cluster.first_owner(self.cluster.slot(&format!("{{{user}}}")).await)
    }

    async fn become_recorded(&self, all: &[Tokens], master: usize) {
        for tokens in all {
            let key = format!("gotrue:{{{}}}:session:{}", tokens.user, tokens.session);
            let mut exists = ::redis::cmd("EXISTS");
            exists.arg(key);
            let there = || async { self.cluster.ask(master, &exists).await.unwrap_or(false).then_some(()) };
            eventually(there, || format!("{} is not recorded\n{}", tokens.user, self.process.stderr())).await;
        }
    }

    /// The third one does not answer from here on, and that is known.
    async fn lose_the_third(&self) {
        self.cluster.nodes[2].hang();
        let is_known = || async { (self.process.metric(OPEN).await >= LANES / 4).then_some(()) };
        eventually(is_known, || self.process.stderr()).await;
    }

    /// Until then it was held against nobody else; what waited for it is written.
    async fn finds_the_third_again(&self) {
        let open = self.process.metric(OPEN).await;
        assert!(open < LANES / 2, "{open} breakers are open, a third of the parts hangs");
        self.cluster.nodes[2].go_on();
        self.process.metric_becomes(LENGTH, 0).await;
    }

    async fn memory(&self, master: usize, bytes: &str) {
        let mut set = ::redis::cmd("CONFIG");
        set.arg(&["SET", "maxmemory", bytes]);
        let () = self.cluster.ask(master, &set).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_part_opens_its_own_breakers_and_holds_up_nobody_elses_changes() {
    let shop = Shop::open(Duration::from_millis(300)).await;
    shop.cluster.nodes[2].hang();
    let lost = shop.sign_in_at(2, 3).await;
    shop.memory(1, "1mb").await;
    let waiting = shop.sign_in_at(1, 3).await;
    let before = shop.process.metric(LENGTH).await;
    assert!(before >= 6, "{before} wait");
    let open = || async { (shop.process.metric(OPEN).await > 0).then_some(()) };
    eventually(open, || "no breaker opens".to_owned()).await;
    let open = shop.process.metric(OPEN).await;
    assert!(open < LANES / 2, "{open} breakers are open, a third of the parts is lost");
    let elsewhere = shop.sign_in_at(0, 3).await;
    shop.become_recorded(&elsewhere, 0).await;
    // what waits for the lost part came first, and does not keep this from being written
    shop.memory(1, "0").await;
    shop.become_recorded(&waiting, 1).await;
    assert!(shop.process.metric(LENGTH).await >= lost.len() as u64);
    shop.cluster.nodes[2].go_on();
    shop.become_recorded(&lost, 2).await;
    shop.process.metric_becomes(LENGTH, 0).await;
    // the last breaker closes when somebody calls its part
    shop.process.metric_becomes(OPEN, 0).await;
    let log = shop.process.stderr();
    assert_eq!(log.matches("breaker open").count(), 1, "{log}");
}

/// A sign-in writes to two masters: the session to its user's own, and whose the refresh token is to another one. Where
/// that one hangs, nobody waits for it, nor is it held against the one that is well.
#[tokio::test]
async fn nobody_waits_for_a_part_where_only_a_refresh_token_lies() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let shop = Shop::open(TIMEOUT).await;
    shop.lose_the_third().await;
    let mut well = Vec::new();
    for _ in 0..30 {
        let began = Instant::now();
        let tokens = Client::new(&shop.process.url).sign_in("a@b.example").await;
        let took = began.elapsed();
        let master = shop.master_of(tokens.user).await;
        let slot = shop.cluster.slot(&format!("{{{}}}", tokens.user)).await;
        assert!(took < TIMEOUT / 2, "a sign-in at master {master}, slot {slot}, took {took:?}");
        if master != 2 {
            well.push((tokens, master));
        }
    }
    for (tokens, master) in well {
        shop.become_recorded(&[tokens], master).await;
    }
    shop.finds_the_third_again().await;
}

/// Two masters are asked about a refresh: one whose its token is, and one what became of that session. Where the second
/// hangs, nobody waits for it, nor is it held against the first.
#[tokio::test]
async fn nobody_waits_to_hear_of_a_session_in_a_part_that_is_away() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let shop = Shop::open_with(TIMEOUT, &["--enforce=true"]).await;
    let there = shop.sign_in_at(2, 12).await;
    shop.become_recorded(&there, 2).await;
    shop.lose_the_third().await;
    let client = Client::new(&shop.process.url);
    for tokens in &there {
        let began = Instant::now();
        assert_eq!(client.refresh(tokens).await.status, 200);
        let took = began.elapsed();
        let slot = shop.cluster.slot(&format!("{{{}}}", tokens.user)).await;
        assert!(took < TIMEOUT / 2, "a refresh in slot {slot} took {took:?}");
    }
    shop.finds_the_third_again().await;
}

/// A connection that may be half open is made again; one to a part that is well is not, however long another is away.
#[tokio::test]
async fn a_lost_part_makes_nobody_connect_to_the_others_again() {
    let shop = Shop::open(Duration::from_millis(300)).await;
    for master in 0..2 {
        shop.sign_in_at(master, 5).await;
    }
    shop.lose_the_third().await;
    let mut before = Vec::new();
    for master in 0..2 {
        before.push(shop.cluster.connections(master).await + 1);
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        Client::new(&shop.process.url).sign_in("a@b.example").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (master, before) in before.into_iter().enumerate() {
        let made = shop.cluster.connections(master).await - before;
        println!("{made} connections to master {master}");
        assert!(made <= 5, "{made} connections to master {master}");
    }
    shop.cluster.nodes[2].go_on();
    shop.process.metric_becomes(LENGTH, 0).await;
}
