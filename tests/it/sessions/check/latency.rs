//! I11, measured: sessions end through one replica while both are busy, and the other one's answers change.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use gotrue_sidecar::store::Source;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{gateway::Gateway, *};
use crate::{sessions::sweeps::store_config, support::process::Process};

const SESSIONS: usize = 1000;
/// Further ones, about which gateways ask all the time.
const OTHERS: usize = 200;
/// So many ask each replica.
const BUSY: usize = 4;

/// Two replicas in processes of their own, by the system's clock. `LATENCY_BIN` is another binary than the tests' own,
/// such as a release build.
struct Pair {
    redis: RedisServer,
    _upstream: Upstream,
    ends: Process,
    refuses: Process,
    now: Seconds,
}

impl Pair {
    async fn with(flags: &[&str]) -> Self {
        let (redis, upstream) = (RedisServer::start(), Upstream::start(always(no_content())).await);
        let (to, store) =
            (format!("--upstream-url={}", upstream.url), format!("--store-url={}", redis.url()));
        let more = [to.as_str(), &store, "--store-timeout=10s", "--session-api-enabled=true"];
        let flags = [&more[..], &UNHURRIED, flags].concat();
        let program = std::env::var_os("LATENCY_BIN");
        let [ends, refuses] =
            [replica(program.as_ref(), &flags).await, replica(program.as_ref(), &flags).await];
        let now = Clock::default().seconds();
        let pair = Self { redis, _upstream: upstream, ends, refuses, now };
        until("the store tells of changes", async || {
            pair.refuses.metric("gotrue_sidecar_check_push_up").await == 1
        })
        .await;
        pair
    }

    /// The tokens of so many sessions that the store knows.
    async fn sessions(&self, many: usize) -> Vec<(Login, String)> {
        let source = Source::new(&store_config(&self.redis), Duration::from_secs(3600)).unwrap();
        let (store, signer) = (source.connect(), Signer::trusted());
        let logins: Vec<_> = (0..many).map(|_| Login::new(self.now)).collect();
        for some in logins.chunks(100) {
            let changes: Vec<_> = some.iter().map(recorded).collect();
            store.apply(&changes, self.now).await.unwrap();
        }
        logins.into_iter().map(|login| (login.clone(), login.access(&signer))).collect()
    }
}

async fn replica(program: Option<&OsString>, flags: &[&str]) -> Process {
    match program {
        Some(program) => Process::start_other(program, flags).await,
        None => Process::start(flags).await,
    }
}

/// With pushes alone, and as it is shipped: then no check that began later than `check.max_staleness` after the answer
/// is let through, whatever the machine was busy with.
#[tokio::test]
async fn a_thousand_revocations_under_load() {
    let shipped = Duration::from_secs(1);
    for (what, flags, staleness) in
        [("told of by Redis alone", &NEVER[..], None), ("as shipped", &[], Some(shipped))]
    {
        let pair = Pair::with(flags).await;
        let (ending, staying) = (pair.sessions(SESSIONS).await, pair.sessions(OTHERS).await);
        let staying: Vec<_> = staying.into_iter().map(|(_, token)| token).collect();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut load = JoinSet::new();
        for turn in 0..BUSY {
            for replica in [pair.ends.admin, pair.refuses.admin] {
                load.spawn(ask_for_ever(replica, staying.clone(), turn, Arc::clone(&asked)));
            }
        }
        let (began, machine) = (Instant::now(), Machine::watched());
        let mut took = measured(&pair, &ending, staleness).await;
        let rate = asked.load(Relaxed) as u128 * 1000 / began.elapsed().as_millis();
        load.abort_all();
        took.sort_unstable();
        let (median, p99, max) = (took[SESSIONS / 2], took[SESSIONS * 99 / 100], took[SESSIONS - 1]);
        println!(
            "{what}: {SESSIONS} revocations beside {rate} checks a second, from the 204 of one replica to the 403 of \
             the other: median {median:?}, p99 {p99:?}, max {max:?}; meanwhile the machine let a thread that had slept \
             wait for {:?}",
            machine.longest_wait()
        );
        // the contract's second, and what a busy machine takes to ask
        assert!(max < Duration::from_secs(3), "{what}: {max:?}");
    }
}

async fn ask_for_ever(
    replica: std::net::SocketAddr,
    tokens: Vec<String>,
    from: usize,
    asked: Arc<AtomicUsize>,
) {
    let mut gateway = Gateway::to(replica).await;
    for turn in (from..).step_by(BUSY) {
        assert_eq!(gateway.check(&tokens[turn % tokens.len()]).await, 200);
        asked.fetch_add(1, Relaxed);
    }
}

/// How busy the machine is with other things: what no program here can do anything about.
struct Machine {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Machine {
    fn watched() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let (nap, mut longest) = (Duration::from_millis(1), Duration::ZERO);
            while !end.load(Relaxed) {
                let began = std::time::Instant::now();
                std::thread::sleep(nap);
                longest = longest.max(began.elapsed().saturating_sub(nap));
            }
            longest
        });
        Self { ends, thread }
    }

    fn longest_wait(self) -> Duration {
        self.ends.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long it took in each case. GoTrue is not told of what an admin revokes, so the answer comes as soon as the store
/// has it.
async fn measured(pair: &Pair, ending: &[(Login, String)], staleness: Option<Duration>) -> Vec<Duration> {
    let key = Signer::trusted().sign(&json!({"role": "service_role", "exp": pair.now + 9999}));
    let bearer = format!("Bearer {key}");
    let mut gateway = Gateway::to(pair.refuses.admin).await;
    let mut took = Vec::new();
    for (login, token) in ending {
        assert_eq!(gateway.check(token).await, 200);
        let target = format!("{}/admin/sessions/{}?user_id={}", pair.ends.url, login.session, login.user);
        let request = Request::delete(target).header("authorization", &bearer).body(String::new()).unwrap();
        assert_eq!(send(request).await.unwrap().status, 204);
        let revoked = Instant::now();
        loop {
            let asked = revoked.elapsed();
            let status = gateway.check(token).await;
            if status == 403 {
                break;
            }
            assert!(staleness.is_none_or(|most| asked < most), "{status} {asked:?} after the revocation");
            assert!(asked < Duration::from_secs(20), "never refused");
        }
        took.push(revoked.elapsed());
    }
    took
}
