//! Every recorded exchange, once more: over HTTP, through a real sidecar, before an upstream that
//! answers as GoTrue did. After each step the client has the recorded answer (I1), GoTrue got the
//! recorded request, and the store holds what it should (I4).
//!
//! What it should hold is what `decisions` works out from the same step without any I/O, and compares
//! with the rows of `auth.sessions`: so the store equals the rows, but for the differences that have a
//! name there. The clock shows the time of the recording, step by step.
//!
//! One exception: where GoTrue renews a session that was revoked here, the client gets
//! `refresh_token_not_found` instead, and the session is ended in GoTrue (contract §6.3).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gotrue_sidecar::{
    clock::Clock,
    session::{Record, SessionId, Sought, State, UserId},
    store::Store,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use redis::AsyncCommands;

use crate::{
    decisions::{Replay, Table},
    support::{
        corpus::{self, Recording, recordings},
        http::{Answer, send_to},
        redis::RedisServer,
        sidecar::Sidecar,
        upstream::{self, Upstream},
    },
};

/// Recordings that are replayed at the same time.
const AT_ONCE: usize = 6;

/// Changes that nobody waits for are made within so long, on however busy a machine.
const SOON: Duration = Duration::from_secs(10);

/// Where GoTrue renews a session that was revoked here: sessions whose logout GoTrue had refused, because
/// the user was banned or the token had run out (contract §6.1), and one to which a token hook of v2.158
/// gave an invented id, which GoTrue then refused.
const RENEWED_REVOKED: [&str; 4] = [
    "v2.158/hook-access-token-v1 refresh-other-session",
    "v2.196/admin-users-v2 refresh-unbanned",
    "v2.196/short-lived-v2 refresh-expired",
    "v2.196/short-lived-v2 refresh-late",
];

#[test]
fn every_recording_replays_with_the_embedded_store() {
    replay_all(None);
}

#[test]
fn every_recording_replays_with_redis() {
    replay_all(Some(&RedisServer::start()));
}

/// What came of all recordings.
#[derive(Default)]
struct Results {
    table: Table,
    failures: Vec<String>,
    renewed_revoked: Vec<String>,
}

fn replay_all(redis: Option<&RedisServer>) {
    let began = Instant::now();
    let waiting = Mutex::new(recordings());
    let results = Mutex::new(Results::default());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some(recording) = next else { break };
                    let (failures, renewed) = runtime.block_on(replay(&recording, redis));
                    let mut results = results.lock().unwrap();
                    results.table.add(&recording, failures.len());
                    results.failures.extend(failures);
                    results.renewed_revoked.extend(renewed);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.renewed_revoked.sort_unstable();
    results.table.print();
    println!("in {:?}", began.elapsed());
    assert!(results.failures.is_empty(), "{}", results.failures.join("\n"));
    assert_eq!(results.renewed_revoked, RENEWED_REVOKED);
}

/// One recording between a client and an upstream.
struct Live<'a> {
    upstream: Upstream,
    /// What the upstream answers next.
    next: Arc<Mutex<Vec<u8>>>,
    sidecar: Sidecar,
    clock: Clock,
    store: Store,
    /// Every session that GoTrue has at any time.
    rows: Vec<(UserId, SessionId)>,
    redis: Option<(&'a RedisServer, String)>,
}

async fn replay(recording: &Recording, redis: Option<&RedisServer>) -> (Vec<String>, Vec<String>) {
    let live = Live::start(recording, redis).await;
    let mut expected = Replay::of(recording);
    let mut failures = Vec::new();
    let mut renewed = Vec::new();
    for (number, step) in recording.steps.iter().enumerate() {
        let wrong = |what: String| format!("{} {}: {what}", recording.name, step.name);
        live.clock.set(step.at_ms());
        expected.step(step);
        let answer = live.exchange(step).await;
        let seen = live.upstream.seen();
        let sent_on = seen.iter().filter(|seen| !seen.header("x-forwarded-for").is_empty()).nth(number);
        let problem = match sent_on {
            None => Some("the request was not sent on".to_owned()),
            Some(seen) => differing_request(&step.request, seen),
        };
        failures.extend(problem.map(wrong));
        if expected.renewed_revoked {
            renewed.push(format!("{} {}", recording.name, step.name));
            failures.extend(differing_refusal(&answer).map(wrong));
        } else {
            failures.extend(differing_answer(&step.response, &answer).map(wrong));
        }
        failures.extend(live.differing_state(&expected, step).await.map(wrong));
        if !failures.is_empty() {
            break; // what follows from it says nothing more
        }
    }
    failures.append(&mut expected.failures);
    failures.extend(live.wrong_keys(&expected, recording).await);
    (failures, renewed)
}

impl<'a> Live<'a> {
    async fn start(recording: &Recording, redis: Option<&'a RedisServer>) -> Self {
        let next = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::clone(&next);
        let upstream = Upstream::start(move |seen| {
            let ours = seen.header("x-forwarded-for").is_empty();
            let answer = if ours { gone() } else { std::mem::take(&mut *answers.lock().unwrap()) };
            vec![upstream::Step::Send(answer)]
        })
        .await;
        let jwt = &recording.metadata.jwt;
        if let Some(jwks) = &jwt.jwks {
            upstream.publish(&jwks.to_string());
        }
        let clock = Clock::standing_at(recording.steps[0].at_ms());
        let prefix = recording.name.replace(['/', '.'], "-");
        let store_url = redis.map_or("memory:".to_owned(), RedisServer::unix_url);
        let sidecar = Sidecar::start_at(
            &clock,
            &[
                "--upstream-url",
                &upstream.url,
                "--store-url",
                &store_url,
                "--store-key-prefix",
                &prefix,
                "--store-timeout",
                "10s",
                "--jwt-secret",
                &jwt.secret,
                "--log-access",
                "false",
            ],
        );
        while sidecar.metric("gotrue_sidecar_jwks_fetches_total{result=\"ok\"}").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let store = sidecar.store();
        Self {
            upstream,
            next,
            sidecar,
            clock,
            store,
            rows: rows_of(recording),
            redis: redis.map(|redis| (redis, prefix)),
        }
    }

    /// Sends the recorded request; the upstream answers with the recorded answer.
    async fn exchange(&self, step: &corpus::Step) -> Answer {
        *self.next.lock().unwrap() = on_the_wire(&step.response);
        let mut request = Request::new(Bytes::from(step.request.body()));
        *request.method_mut() = Method::from_bytes(step.request.method.as_bytes()).unwrap();
        *request.uri_mut() = step.request.path.parse().unwrap();
        *request.headers_mut() = step.request.headers();
        send_to(&self.sidecar.address.to_string(), request).await.unwrap()
    }

    /// What of the store is not as it should be, once what nobody waits for had its time.
    async fn differing_state(&self, expected: &Replay<'_>, step: &corpus::Step) -> Option<String> {
        let began = Instant::now();
        loop {
            let differing = self.differing_state_now(expected, step).await;
            if differing.is_none() || began.elapsed() > SOON {
                return differing;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn differing_state_now(&self, expected: &Replay<'_>, step: &corpus::Step) -> Option<String> {
        let now = self.clock.seconds();
        for record in expected.model.records() {
            let state = self.look(record.user, record.session).await;
            let state = if let State::Live(stored) = state {
                State::Live(Box::new(same_second(*stored, record)))
            } else {
                state
            };
            let suspended = expected.model.suspended_until(&record.user.to_string(), now);
            let right =
                suspended.map_or_else(|| State::Live(Box::new(unseen(record.clone()))), State::Suspended);
            if state != right {
                return Some(format!("{state:?} is stored, should be {right:?}"));
            }
        }
        for (user, session) in &self.rows {
            let known = expected.model.records().any(|record| record.session == *session);
            if !known && let State::Live(record) = self.look(*user, *session).await {
                return Some(format!("{record:?} is stored"));
            }
        }
        for row in &step.after.users {
            let user = UserId::parse(&row.id).unwrap();
            let nobodys = SessionId::parse("ffffffff-ffff-4fff-8fff-ffffffffffff").unwrap();
            let suspended = expected.model.suspended_until(&row.id, now);
            let right = suspended.map_or(State::Unknown, State::Suspended);
            let state = self.look(user, nobodys).await;
            if state != right {
                return Some(format!("user {user} is {state:?}, should be {right:?}"));
            }
        }
        None
    }

    async fn look(&self, user: UserId, session: SessionId) -> State {
        match self.store.lookup(&Sought::of(user, session), self.clock.seconds()).await.unwrap() {
            State::Live(record) => State::Live(Box::new(unseen(*record))),
            other => other,
        }
    }

    /// What stands in Redis at the end and should not: records of nobody (I4), keys that stay for ever
    /// (I10), tokens in clear (I7).
    async fn wrong_keys(&self, expected: &Replay<'_>, recording: &Recording) -> Vec<String> {
        let Some((server, prefix)) = &self.redis else { return Vec::new() };
        let mut redis = server.client().await;
        let mut wrong = Vec::new();
        let keys: Vec<String> = redis.keys(format!("{prefix}:*")).await.unwrap();
        let records: Vec<String> = expected
            .model
            .records()
            .map(|record| format!("{prefix}:{{{}}}:session:{}", record.user, record.session))
            .collect();
        for key in &keys {
            if redis.ttl::<_, i64>(key).await.unwrap() < 0 {
                wrong.push(format!("{key} stays for ever"));
            }
            if key.contains(":session:") && !records.contains(key) {
                wrong.push(format!("{key} should not be there"));
            }
        }
        for key in &records {
            let fields: Vec<String> = redis.hvals(key).await.unwrap();
            for step in &recording.steps {
                for token in tokens_in(step.response.body()) {
                    if fields.iter().any(|field| field.contains(&token)) {
                        wrong.push(format!("{key} holds a token of {}", step.name));
                    }
                }
            }
        }
        wrong
    }
}

fn tokens_in(body: &[u8]) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    ["access_token", "refresh_token"]
        .iter()
        .filter_map(|name| body[*name].as_str())
        .map(str::to_owned)
        .collect()
}

fn rows_of(recording: &Recording) -> Vec<(UserId, SessionId)> {
    let rows = recording.steps.iter().flat_map(|step| &step.after.sessions);
    let rows: BTreeSet<_> =
        rows.map(|row| (UserId::parse(&row.user_id).unwrap(), SessionId::parse(&row.id).unwrap())).collect();
    rows.into_iter().collect()
}

/// Without `seen_at`: requests that change nothing else touch it when they get to it.
fn unseen(record: Record) -> Record {
    Record { seen_at: None, ..record }
}

/// Of two answers of one second with the same refresh token none is the later one: what the first said
/// of the client stands.
fn same_second(stored: Record, expected: &Record) -> Record {
    let (stored_at, expected_at) = (stored.refreshed_at, expected.refreshed_at);
    if stored_at != expected_at || stored.refresh_ref != expected.refresh_ref {
        return stored;
    }
    Record { ip: expected.ip.clone(), user_agent: expected.user_agent.clone(), ..stored }
}

/// What GoTrue says to a logout for which nobody waits.
fn gone() -> Vec<u8> {
    b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
}

/// The recorded answer in bytes, chunked where it was.
fn on_the_wire(response: &corpus::Response) -> Vec<u8> {
    let lines = response.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers = lines.collect::<Vec<_>>().concat();
    let mut bytes = format!("HTTP/1.1 {} Recorded\r\n{headers}\r\n", response.status).into_bytes();
    let body = response.whole_body();
    if response.headers().contains_key("transfer-encoding") {
        for chunk in body.chunks(body.len() / 2 + 1) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend([chunk, b"\r\n"].concat());
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(body);
    }
    bytes
}

/// What GoTrue got that the client did not send, or the other way round.
fn differing_request(sent: &corpus::Request, seen: &upstream::Seen) -> Option<String> {
    let line = format!("{} {} HTTP/1.1", sent.method, sent.path);
    if seen.request_line() != line {
        return Some(format!("GoTrue got {} instead of {line}", seen.request_line()));
    }
    if seen.body != sent.body() {
        return Some("GoTrue got another body".to_owned());
    }
    for (name, _) in &sent.headers {
        let values: Vec<&str> =
            sent.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
        let got = seen.header(name);
        let forwarded = name.eq_ignore_ascii_case("x-forwarded-for");
        let values: Vec<&str> = values.iter().map(|value| value.trim_end()).collect(); // RFC 9110 §5.5
        let same = if forwarded { got == [format!("{}, 127.0.0.1", values[0])] } else { got == values };
        if !same {
            return Some(format!("GoTrue got {name}: {got:?} instead of {values:?}"));
        }
    }
    None
}

/// What the client got that GoTrue did not answer, or the other way round.
fn differing_answer(recorded: &corpus::Response, answer: &Answer) -> Option<String> {
    if answer.status.as_u16() != recorded.status {
        return Some(format!("answered {} instead of {}", answer.status, recorded.status));
    }
    let (sent, got) = (recorded.headers(), &answer.headers);
    if lines(&sent) != lines(got) {
        return Some(format!("answered with {got:?} instead of {sent:?}"));
    }
    (answer.body != recorded.whole_body()).then(|| "answered another body".to_owned())
}

/// In the order in which names first came, duplicates in theirs.
fn lines(headers: &HeaderMap) -> Vec<(&HeaderName, &HeaderValue)> {
    headers.iter().collect()
}

/// The client must not get the tokens of a session that was revoked.
fn differing_refusal(answer: &Answer) -> Option<String> {
    let refused = answer.status == 400 && answer.error_code() == Some("refresh_token_not_found");
    (!refused).then(|| format!("answered {} to the refresh of a revoked session", answer.status))
}
