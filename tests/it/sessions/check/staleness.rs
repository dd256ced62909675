//! I11 at its worst: whatever becomes of what Redis tells, no check that begins later than `check.max_staleness` after a
//! revocation is let through. Measured from the revocation's end to the check's beginning, so that it holds to the
//! microsecond on however busy a machine.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet, spawn},
    time::{Instant, sleep},
};

use super::{gateway::Gateway, *};
use crate::support::{
    relay::{Does, Relay},
    upstream::Gate,
};

/// As shipped.
const STALENESS: Duration = Duration::from_secs(1);
/// Shorter than that, and long enough to get something between a question and its answer.
const LATE: Duration = Duration::from_millis(600);

/// What becomes of the connections to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PushesLost,
    EverythingLate,
    AnswersLateAndPushesLost,
    HalfOpen,
    ClosedAgainAndAgain,
    TrackingForbidden,
}

impl Fault {
    /// Begins it. What goes on has an end when it is aborted.
    async fn begin(self, relay: &Arc<Relay>, redis: &RedisServer) -> Option<JoinHandle<()>> {
        match self {
            Self::PushesLost => relay.does(Does::LosePushes),
            Self::EverythingLate => relay.does(Does::Delay(LATE)),
            Self::AnswersLateAndPushesLost => relay.does(Does::DelayAndLosePushes(LATE)),
            Self::HalfOpen => relay.swallow(),
            Self::ClosedAgainAndAgain => {
                let relay = Arc::clone(relay);
                return Some(spawn(async move {
                    loop {
                        relay.does(Does::Cut);
                        sleep(Duration::from_millis(50)).await;
                        relay.does(Does::Pass);
                        sleep(Duration::from_millis(250)).await;
                    }
                }));
            }
            Self::TrackingForbidden => {
                let () = redis_cli(redis, &["ACL", "SETUSER", "default", "-client|tracking"]).await;
                let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
                let _: i64 = redis_cli(redis, &kill).await;
            }
        }
        None
    }
}

/// Threat: a session that was ended is let through because nobody heard of its end, or heard of it too late; because an
/// answer from before it came after it; or because two questions at once made the older answer look new.
#[tokio::test]
async fn whatever_becomes_of_what_redis_tells_nothing_is_believed_for_longer() {
    for fault in [
        Fault::PushesLost,
        Fault::EverythingLate,
        Fault::AnswersLateAndPushesLost,
        Fault::HalfOpen,
        Fault::ClosedAgainAndAgain,
        Fault::TrackingForbidden,
    ] {
        let world = World::checking(&[]).await;
        let relay = Arc::new(Relay::to(world.redis.port()).await);
        let sidecar = behind(&relay, &world.upstream, &world.clock, &["--jwt-secret", SECRET]);
        hears(&sidecar).await;
        // the one is remembered before it begins, the other is asked about amid it
        let [known, new] = [NOW; 2].map(Login::new);
        world.know(&[&known, &new]).await;
        let tokens = [&known, &new].map(|login| login.access(&world.signer));
        remembered(&sidecar, &tokens[0]).await;
        let goes_on = fault.begin(&relay, &world.redis).await;
        let (tell, revoked) = watch::channel(None);
        let (mut asking, allowed) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for token in tokens.iter().cycle().take(4) {
            let (token, revoked, allowed) = (token.clone(), revoked.clone(), Arc::clone(&allowed));
            asking.spawn(until_refused(fault, sidecar.admin, token, revoked, allowed));
        }
        sleep(LATE / 2).await;
        for login in [&known, &new] {
            world.bury(login).await;
        }
        tell.send_replace(Some(Instant::now()));
        asking.join_all().await;
        println!("{fault:?}: {} checks were let through after the revocation", allowed.load(Relaxed));
        if let Some(goes_on) = goes_on {
            goes_on.abort();
        }
    }
}

/// Asks until the answer is no. `revoked`: since when it should be, at the latest.
async fn until_refused(
    fault: Fault,
    admin: std::net::SocketAddr,
    token: String,
    revoked: watch::Receiver<Option<Instant>>,
    allowed: Arc<AtomicUsize>,
) {
    let mut gateway = Gateway::to(admin).await;
    loop {
        let since = revoked.borrow().map(|revoked| revoked.elapsed());
        match (gateway.check(&token).await, since) {
            (403, _) => return,
            (200, Some(since)) => {
                assert!(since < STALENESS, "{fault:?}: let through {since:?} after the revocation");
                allowed.fetch_add(1, Relaxed);
            }
            // while it cannot be decided, nobody is let in
            (200 | 503, _) => {}
            (status, _) => panic!("{fault:?}: {status}"),
        }
        assert!(since.is_none_or(|since| since < Duration::from_secs(30)), "{fault:?}: never refused");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Threat: a check is kept waiting for a key, and then believes what was fresh when it came.
#[tokio::test]
async fn a_check_that_waited_for_a_key_believes_nothing_from_before() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let (redis, upstream) = (RedisServer::start(), Upstream::start(always(no_content())).await);
    let (first, both) = (Signer::jwks(&[&old]), Signer::jwks(&[&old, &new]));
    let (gate, fetched) = (Gate::new(), AtomicUsize::new(0));
    let held = gate.clone();
    let keys = Upstream::start(move |_| match fetched.fetch_add(1, Relaxed) {
        0 => vec![Step::Send(json(&first))],
        _ => vec![Step::Until(held.clone()), Step::Send(json(&both))],
    })
    .await;
    let (relay, clock) = (Arc::new(Relay::to(redis.port()).await), Clock::standing_at(NOW_MS));
    let published = format!("{}/keys", keys.url);
    let sidecar = behind(&relay, &upstream, &clock, &["--jwt-jwks", &published]);
    hears(&sidecar).await;
    let login = Login::new(NOW);
    sidecar.store().apply(&[recorded(&login)], NOW).await.unwrap();
    until("the first key is known", async || check(&sidecar, &login.access(&old)).await.status == 200).await;
    sleep(Duration::from_millis(5100)).await; // keys are fetched every five seconds at most
    relay.does(Does::LosePushes);
    assert_eq!(check(&sidecar, &login.access(&old)).await.status, 200);
    let (token, admin) = (login.access(&new), sidecar.admin);
    let waiting = spawn(async move { Gateway::to(admin).await.check(&token).await });
    keys.arrived_times("GET /keys", 2).await;
    let tombstone = format!("gotrue:{{{}}}:revoked:{}", login.user, login.session);
    let () = redis_cli(&redis, &["SET", &tombstone, "by hand", "EX", "3600"]).await;
    sleep(STALENESS).await;
    gate.open();
    assert_eq!(waiting.await.unwrap(), 403);
}

/// A sidecar that speaks to Redis through a relay.
fn behind(relay: &Relay, upstream: &Upstream, clock: &Clock, flags: &[&str]) -> Sidecar {
    let store = format!("redis://127.0.0.1:{}", relay.port);
    let more = ["--upstream-url", &upstream.url, "--store-url", &store, "--store-timeout", "2s"];
    Sidecar::start_at(clock, &[&more[..], &["--check-timeout", "10s"], flags].concat())
}
