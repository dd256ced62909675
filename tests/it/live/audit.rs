//! The audit before a GoTrue that people use: it makes known who was there first, finds what went past the
//! sidecar, and under traffic brings nobody back (contract I3, I4, I9).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gotrue_sidecar::{
    clock,
    config::{self, RedisTarget, Secret, SecretSource, StoreTarget},
    drift::{self, Cause, Kind as Difference, Report},
    session::{SessionId, Sought, State, UserId},
};
use http::StatusCode;
use tokio::task::JoinSet;

use crate::support::{
    client::{Client, Tokens, new_email},
    pod::{Pod, keys_without_ttl},
    postgres::connect,
};

/// How long people go on while audits repair.
const TRAFFIC: Duration = Duration::from_secs(8);

/// People at once.
const PEOPLE: usize = 6;

impl Pod {
    async fn audit(&self, repair: bool, settle: Duration) -> Report {
        let url = |url: String| SecretSource::Value(Secret::new(url));
        let store = config::Store {
            target: StoreTarget::Redis(Box::new(RedisTarget::at(url(self.redis.url())))),
            key_prefix: "gotrue".to_owned(),
            timeout: Duration::from_millis(250),
            ref_key: None,
            wait_replicas: 0,
            memory_max_sessions: 1,
        };
        let database = url(self.gotrue.database_url());
        let ttl = Duration::from_secs(30 * 24 * 60 * 60);
        drift::run(drift::Job { store: &store, ttl, database: &database, repair, settle }, &mut |_| {})
            .await
            .unwrap()
    }

    async fn sql(&self, sql: &str) {
        connect(&self.gotrue.database_url()).await.batch_execute(sql).await.unwrap();
    }

    async fn state(&self, user: UserId, session: SessionId) -> State {
        self.sidecar.store().lookup(&Sought::of(user, session), clock::seconds()).await.unwrap()
    }
}

const AT_REST: Duration = Duration::from_millis(50);

#[tokio::test]
async fn sessions_that_are_older_than_the_sidecar_become_known_and_live_on() {
    let pod = Pod::on_postgres().await;
    let (direct, client, email) = (Client::new(&pod.gotrue.url), pod.client(), new_email());
    let phone = direct.sign_up(&email).await;
    let laptop = direct.sign_in(&email).await;
    direct.sign_up(&new_email()).await;
    assert_eq!(pod.audit(false, AT_REST).await.found_of(Cause::Unknown), 3);
    let report = pod.audit(true, AT_REST).await;
    assert_eq!((report.found_of(Cause::Unknown), report.left()), (3, 0));
    pod.assert_true("the first audit").await;

    let phone = Tokens::of(&client.refresh(&phone).await);
    assert_eq!(pod.record(phone.session).await["expires_at"], phone.claims()["exp"].to_string());
    client.sign_in(&email).await;
    let report = pod.audit(false, AT_REST).await;
    assert_eq!((report.rows, report.sessions, report.left()), (4, 4, 0), "{}", report.text());
    assert_eq!(client.logout(&laptop, "?scope=global").await.status, StatusCode::NO_CONTENT);
    pod.assert_true("a logout of imported sessions").await;
    assert_eq!(pod.state(laptop.user, laptop.session).await, State::Revoked);
    assert_eq!(pod.audit(false, AT_REST).await.left(), 0);
    assert_eq!(keys_without_ttl(&mut pod.redis.client().await).await, [""; 0]);
}

#[tokio::test]
async fn what_went_past_the_sidecar_is_found_and_repaired() {
    let pod = Pod::on_postgres().await;
    let (direct, client, email) = (Client::new(&pod.gotrue.url), pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    let laptop = client.sign_in(&email).await;
    let other = client.sign_up(&new_email()).await;
    pod.sql(&format!("DELETE FROM auth.sessions WHERE id = '{}'", phone.session)).await;
    pod.sql(&format!("UPDATE auth.sessions SET aal = 'aal2' WHERE id = '{}'", other.session)).await;
    assert_eq!(direct.logout(&laptop, "?scope=local").await.status, StatusCode::NO_CONTENT);
    let missed = direct.sign_in(&email).await;

    // where the token does not name a level, the row's is not another one
    let levels = u64::from(pod.gotrue.kind().tells_how_one_signed_in());
    for (repair, left) in [(false, 3 + levels), (true, 0)] {
        let report = pod.audit(repair, AT_REST).await;
        assert_eq!(Difference::ALL.map(|kind| report.found(kind)), [1, 2, levels], "{}", report.text());
        assert_eq!(report.left(), left);
    }
    pod.assert_true("the repair").await;
    assert_eq!(pod.state(phone.user, phone.session).await, State::Revoked);
    assert!(matches!(pod.state(missed.user, missed.session).await, State::Live(_)));
    assert_eq!(pod.audit(false, AT_REST).await.left(), 0);
}

#[tokio::test]
async fn nobody_who_logged_out_comes_back_while_audits_repair() {
    let pod = Arc::new(Pod::on_postgres().await);
    let ended: Arc<Mutex<Vec<(UserId, SessionId)>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let mut people = JoinSet::new();
    for number in 0..PEOPLE {
        let (through, past) = (pod.client(), Client::new(&pod.gotrue.url));
        people.spawn(live(number, through, past, Arc::clone(&ended), Arc::clone(&over)));
    }
    let began = Instant::now();
    let (mut audits, mut repaired) = (0, 0);
    while began.elapsed() < TRAFFIC {
        // far shorter than in the field: what is under way is taken for drift more often than it should
        let report = pod.audit(true, Duration::from_millis(audits % 4 * 20)).await;
        assert_eq!(report.left(), 0, "{}", report.text());
        (audits, repaired) = (audits + 1, repaired + report.repaired());
        assert_ended(&pod, &ended).await;
    }
    over.store(true, Ordering::Relaxed);
    people.join_all().await;
    pod.audit(true, AT_REST).await;
    assert_ended(&pod, &ended).await;
    let report = pod.audit(false, AT_REST).await;
    assert_eq!(report.left(), 0, "{}", report.text());
    pod.assert_true("the last audit").await;
    let ended = ended.lock().unwrap().len();
    println!("{audits} audits repaired {repaired} sessions while {ended} ended; {} live on", report.sessions);
    assert!(audits > 3 && repaired > 0 && ended > 10, "{audits} {repaired} {ended}");
}

/// Signs in here and there, refreshes, and logs out by every scope, until it is over.
async fn live(
    number: usize,
    through: Client,
    past: Client,
    ended: Arc<Mutex<Vec<(UserId, SessionId)>>>,
    over: Arc<AtomicBool>,
) {
    let email = new_email();
    let mut devices = vec![through.sign_up(&email).await];
    for turn in number.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let client = if turn % 3 == 0 { &past } else { &through };
        devices.push(client.sign_in(&email).await);
        if let Some(tokens) = devices.first_mut() {
            *tokens = Tokens::of(&through.refresh(tokens).await);
        }
        let (scope, gone) = match turn % 4 {
            0 => ("?scope=local", devices.drain(..1)),
            1 => ("?scope=global", devices.drain(..)),
            // the others, as seen by the last one
            2 => ("?scope=others", devices.drain(..devices.len() - 1)),
            _ => continue,
        };
        let gone: Vec<Tokens> = gone.collect();
        let caller = devices.last().filter(|_| turn % 4 == 2).or(gone.first());
        let Some(caller) = caller else { continue };
        let answer = through.logout(caller, scope).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{scope}: {answer:?}");
        ended.lock().unwrap().extend(gone.iter().map(|tokens| (tokens.user, tokens.session)));
    }
}

/// Whoever was logged out until now is not live.
async fn assert_ended(pod: &Pod, ended: &Mutex<Vec<(UserId, SessionId)>>) {
    let until_now = ended.lock().unwrap().clone();
    for (user, session) in until_now {
        let state = pod.state(user, session).await;
        assert!(!matches!(state, State::Live(_)), "{session} was logged out, and is {state:?}");
    }
}
