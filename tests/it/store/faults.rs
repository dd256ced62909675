//! A Redis that does not do what it is asked, and what that costs.

use std::time::Instant;

use redis::AsyncCommands;
use tokio::io::AsyncReadExt;

use super::*;
use crate::support::{
    redis::{PASSWORD, Setup, Tls, USER},
    relay::{Does, Relay},
    until,
};

/// What a call may take that waits for this timeout: less than two of them, so that whoever waits twice would show.
fn bound(timeout: Duration) -> Duration {
    timeout * 9 / 5
}

/// The error's word, and how long it took to come.
pub(super) async fn failure(store: &Store) -> (&'static str, Duration) {
    let record = signed_in(somebody(), some_session());
    let started = Instant::now();
    let error = store.apply(&[sign_in(&record)], NOW).await.unwrap_err();
    (error.cause(), started.elapsed())
}

/// So many calls fail, each with that timeout, and only once: of one the machine may have thought longer.
async fn wait_in_vain(store: &Store, timeout: Duration, times: usize) {
    let mut late = Vec::new();
    for _ in 0..times {
        let (cause, waited) = failure(store).await;
        assert_eq!(cause, "timeout");
        late.extend((waited >= bound(timeout)).then_some(waited));
    }
    assert!(late.len() <= 1, "{late:?}");
}

pub(super) async fn works(store: &Store) -> bool {
    let record = signed_in(somebody(), some_session());
    store.apply(&[sign_in(&record)], NOW).await == Ok(vec![Outcome::Created])
}

#[tokio::test]
async fn it_starts_without_redis_and_connects_later() {
    let mut server = RedisServer::start();
    server.kill();
    let store = on(&server);
    for _ in 0..20 {
        let (cause, waited) = failure(&store).await;
        assert_eq!(cause, "refused");
        assert!(waited < AT_ONCE, "{waited:?}");
    }
    assert_eq!(store.ping().await.unwrap_err().cause(), "refused");
    server.restart();
    assert!(works(&store).await);
}

#[tokio::test]
async fn a_restart_costs_no_call() {
    let mut server = RedisServer::start();
    let store = on(&server);
    assert!(works(&store).await);
    for _ in 0..3 {
        server.restart();
        assert!(works(&store).await);
        assert_eq!(look(&store, somebody(), some_session()).await, State::Unknown);
    }
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    for _ in 0..2 {
        let (old, new) = (signed_in(user, some_session()), signed_in(user, some_session()));
        let changes = [sign_in(&old), sign_in(&new), end(user, Which::One(old.session))];
        let outcomes = store.apply(&changes, NOW).await.unwrap();
        assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::Ended(1)]);
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.unwrap();
    }
}

#[tokio::test]
async fn a_hanging_redis_costs_the_timeout_and_comes_back() {
    let server = RedisServer::start();
    let store = open(&hurried(redis_target(server.url())));
    until("it works", async || works(&store).await).await;
    server.hang();
    wait_in_vain(&store, TIMEOUT, 6).await;
    let store = std::sync::Arc::new(store);
    let mut took = Vec::new();
    while took.len() < 3 && took.iter().all(|took| *took >= bound(TIMEOUT)) {
        let started = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let store = std::sync::Arc::clone(&store);
            waiting.spawn(async move { failure(&store).await.0 });
        }
        assert!(waiting.join_all().await.into_iter().all(|cause| cause == "timeout"));
        took.push(started.elapsed());
    }
    assert!(took.iter().any(|took| *took < bound(TIMEOUT)), "a hundred at once take {took:?}");
    server.go_on();
    // it has what was asked meanwhile to do first
    until("it comes back", async || works(&store).await).await;
}

#[tokio::test]
async fn a_redis_that_hangs_from_the_start_costs_the_timeout() {
    let server = RedisServer::start();
    server.hang();
    // With a login on the connection: the handshake hangs, not the command. It is given up after a second by itself.
    let timeout = Duration::from_millis(400);
    let target = redis_target(format!("redis://:password@127.0.0.1:{}", server.port()));
    let store = open(&config::Store { timeout, ..config(target) });
    wait_in_vain(&store, timeout, 3).await;
    server.go_on();
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_replaced() {
    let server = RedisServer::start();
    let relay = Relay::to(server.port()).await;
    let store = open(&hurried(redis_target(format!("redis://127.0.0.1:{}", relay.port))));
    until("it works", async || works(&store).await).await;
    relay.swallow();
    let mut failed = 0;
    while !works(&store).await {
        failed += 1;
        assert!(failed <= 3, "three timeouts make a connection suspect");
    }
    assert!(failed >= 1, "nothing was silent");
}

#[tokio::test]
async fn callers_that_give_up_first_count_too() {
    let server = RedisServer::start();
    let relay = Relay::to(server.port()).await;
    let store = open(&hurried(redis_target(format!("redis://127.0.0.1:{}", relay.port))));
    until("it works", async || works(&store).await).await;
    relay.swallow();
    for _ in 0..3 {
        let impatient = tokio::time::timeout(TIMEOUT * 7 / 10, works(&store));
        assert!(impatient.await.is_err());
    }
    assert!(works(&store).await);
}

/// The way back must not be looked for over a new connection each time.
#[tokio::test]
async fn a_connection_that_takes_longer_than_a_call_waits_is_used_when_it_is_there() {
    let server = RedisServer::start();
    let relay = Relay::to(server.port()).await;
    let store = open(&hurried(redis_target(format!("redis://127.0.0.1:{}", relay.port))));
    relay.does(Does::Delay(TIMEOUT.mul_f64(0.6)));
    for ask in 0.. {
        let began = Instant::now();
        if store.ping().await.is_ok() {
            break;
        }
        store.renew(0, began);
        assert!(ask < 10, "it is never there");
        tokio::time::sleep(TIMEOUT).await;
    }
}

/// As checks do, whose gateways wait for less than `store.timeout`.
#[tokio::test]
async fn callers_that_never_wait_for_long_find_out_together() {
    let server = RedisServer::start();
    let relay = Relay::to(server.port()).await;
    let store = open(&hurried(redis_target(format!("redis://127.0.0.1:{}", relay.port))));
    let hasty = async || tokio::time::timeout(TIMEOUT.mul_f64(0.4), works(&store)).await == Ok(true);
    assert!(works(&store).await);
    relay.swallow();
    let silent = Instant::now();
    while !hasty().await {
        assert!(silent.elapsed() < Duration::from_secs(5), "nobody notices");
    }
}

#[tokio::test]
async fn a_wrong_password_fails_fast_and_heals_when_it_is_reloaded() {
    let server = RedisServer::with_options(&["--requirepass", "right"]);
    let (_folder, path) = password_file("wrong-canary");
    let target = to(server.url(), |it| it.password = Some(SecretSource::File(path.clone())));
    let source = Source::new(&config(target), Duration::from_secs(SESSION_TTL)).unwrap();
    let store = source.connect();
    for _ in 0..3 {
        let (cause, waited) = failure(&store).await;
        assert_eq!(cause, "auth");
        assert!(waited < AT_ONCE, "{waited:?}");
    }
    std::fs::write(&path, "right").unwrap();
    source.reload().unwrap();
    assert!(works(&store).await);
    std::fs::remove_file(&path).unwrap();
    let error = source.reload().unwrap_err().to_string();
    assert!(error.starts_with("store.password_file: "), "{error}");
    assert!(!format!("{source:?} {store:?} {error}").contains("right"));
    assert!(works(&source.connect()).await);
}

#[tokio::test]
async fn a_password_that_was_rotated_is_read_again_at_once() {
    let server = RedisServer::launch(Setup::new().with_user());
    let (_folder, path) = password_file(PASSWORD);
    let target = to(server.url(), |it| {
        it.username = Some(USER.to_owned());
        it.password = Some(SecretSource::File(path.clone()));
    });
    let store = open(&config(target));
    let mut redis = server.client().await;
    assert!(works(&store).await);
    let set_user = |words: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(USER).arg(words);
        command
    };
    let _: () = set_user(&["resetpass", ">next"]).query_async(&mut redis).await.unwrap();
    // connections that stand are left alone by Redis; a new one is needed after they were cut
    let _: u64 =
        redis::cmd("CLIENT").arg("KILL").arg("USER").arg(USER).query_async(&mut redis).await.unwrap();
    assert_eq!(failure(&store).await.0, "auth");
    std::fs::write(&path, "next").unwrap();
    until("the file is read again", async || works(&store).await).await;
}

#[tokio::test]
async fn certificates_that_were_rotated_are_read_again_at_once() {
    let mut server = RedisServer::launch(Setup { tls: Tls::Mutual("127.0.0.1"), ..Setup::new() });
    let target = to(server.url(), |it| {
        it.tls.ca_file = Some(server.ca_file());
        it.tls.client = Some(client_of(&server));
    });
    let store = open(&config(target));
    assert!(works(&store).await);
    server.new_certificates();
    server.restart();
    until("the files are read again", async || works(&store).await).await;
}

#[tokio::test]
async fn without_the_certificate_that_it_wants_tls_fails() {
    let server = RedisServer::launch(Setup { tls: Tls::Mutual("127.0.0.1"), ..Setup::new() });
    let store = open(&config(to(server.url(), |it| it.tls.ca_file = Some(server.ca_file()))));
    let (cause, waited) = failure(&store).await;
    assert_eq!(cause, "tls");
    assert!(waited < AT_ONCE, "{waited:?}");
}

/// The name goes over the wire before anything is encrypted (SNI), for whoever has several certificates.
#[tokio::test]
async fn the_name_in_the_certificate_is_asked_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rediss://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let store = open(&hurried(to(url, |it| it.tls.server_name = Some("redis.internal".to_owned()))));
    let (accepted, _) = tokio::join!(listener.accept(), store.ping());
    let mut hello = vec![0; 4096];
    let read = accepted.unwrap().0.read(&mut hello).await.unwrap();
    assert!(hello[..read].windows(14).any(|part| part == b"redis.internal"), "{read} bytes");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = RedisServer::launch(Setup { tls: Tls::Mutual("redis.internal"), ..Setup::new() });
    for name in [None, Some("redis.external".to_owned())] {
        let target = to(server.url(), |it| {
            it.tls.ca_file = Some(server.ca_file());
            it.tls.client = Some(client_of(&server));
            it.tls.server_name = name;
        });
        assert_eq!(failure(&open(&config(target))).await.0, "tls");
    }
}

#[tokio::test]
async fn another_shape_needs_a_restart() {
    let server = RedisServer::start();
    let (_folder, path) = password_file(&server.url());
    let target = StoreTarget::Redis(Box::new(RedisTarget::at(SecretSource::File(path.clone()))));
    let source = Source::new(&config(target), Duration::from_secs(SESSION_TTL)).unwrap();
    assert!(works(&source.connect()).await);
    std::fs::write(&path, "redis+cluster://127.0.0.1:1").unwrap();
    let error = source.reload().unwrap_err().to_string();
    assert!(error.starts_with("store.url: expected the same shape"), "{error}");
    assert!(works(&source.connect()).await);
}

#[tokio::test]
async fn no_password_where_one_is_wanted_is_auth() {
    let server = RedisServer::with_options(&["--requirepass", "right"]);
    let (cause, _) = failure(&on(&server)).await;
    assert_eq!(cause, "auth");
}

#[tokio::test]
async fn what_the_user_may_not_do_is_auth() {
    let user = ["--user", "narrow", "on", ">p", "~elsewhere:*", "+@all"];
    let server = RedisServer::with_options(&user);
    let store = open(&config(redis_target(format!("redis://narrow:p@127.0.0.1:{}", server.port()))));
    let (cause, _) = failure(&store).await;
    assert_eq!(cause, "auth");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_with_its_reason() {
    let (server, other) = (RedisServer::with_tls(), RedisServer::with_tls());
    let target = to(server.url(), |it| it.tls.ca_file = Some(other.ca_file()));
    let error = open(&config(target)).ping().await.unwrap_err();
    assert_eq!(error.cause(), "tls");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_replica_is_read_only_and_left_when_it_is_promoted() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let record = signed_in(somebody(), some_session());
    apply(&store, &sign_in(&record)).await;
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query_async(&mut redis).await.unwrap();
    let (cause, _) = failure(&store).await;
    assert_eq!(cause, "read_only");
    // It can still be asked, and a touch that it refuses is no failure.
    let found = store.lookup(&Sought { touch: true, ..Sought::of(record.user, record.session) }, NOW).await;
    assert_eq!(found, Ok(State::Live(Box::new(record))));
    let _: () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut redis).await.unwrap();
    assert!(works(&store).await);
}

#[tokio::test]
async fn a_full_redis_takes_no_session_but_every_ending() {
    let server = RedisServer::with_options(&["--maxmemory-policy", "noeviction"]);
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let mut records: Vec<_> = (0..4).map(|_| signed_in(user, some_session())).collect();
    (records[3].aal, records[3].factor_id) = (Some(Aal::Aal2), Some(factor_id(1)));
    for record in &records {
        apply(&store, &sign_in(record)).await;
    }
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1mb").query_async(&mut redis).await.unwrap();
    let before: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
    let (cause, _) = failure(&store).await;
    assert_eq!(cause, "out_of_memory");
    let after: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
    assert_eq!(before, after);
    let found = store.lookup(&Sought { touch: true, ..Sought::of(user, records[0].session) }, NOW).await;
    assert_eq!(found, Ok(State::Live(Box::new(records[0].clone()))));

    assert_eq!(apply(&store, &end(user, Which::One(records[0].session))).await, Outcome::Ended(1));
    assert_eq!(apply(&store, &end(user, Which::Others(records[3].session))).await, Outcome::Ended(2));
    assert_eq!(apply(&store, &Change::LowerAal { user, factor: factor_id(1) }).await, Outcome::Marked);
    assert_eq!(live(&store, user, records[3].session).await.aal, Some(Aal::Aal1));
    assert_eq!(apply(&store, &end(user, Which::All)).await, Outcome::Ended(1));
    for record in &records {
        assert_eq!(look(&store, user, record.session).await, State::Revoked);
    }
}

#[tokio::test]
async fn a_redis_that_takes_no_further_connection_refuses() {
    let server = RedisServer::start();
    let mut only = server.client().await;
    for (most, expected) in [("1", "refused"), ("100", "works")] {
        let set = ["SET", "maxclients", most];
        redis::cmd("CONFIG").arg(&set).exec_async(&mut only).await.unwrap();
        let store = on(&server);
        let found = if works(&store).await { "works" } else { failure(&store).await.0 };
        assert_eq!(found, expected, "{most} connections");
    }
}

#[tokio::test]
async fn a_loading_redis_is_named() {
    let server = RedisServer::with_options(&[
        "--enable-debug-command",
        "yes",
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let (store, mut redis) = (on(&server), server.client().await);
    assert!(works(&store).await);
    for number in 0..2000 {
        let _: () = redis.set(number, "x").await.unwrap();
    }
    let mut reloading = server.client().await;
    tokio::spawn(async move {
        let _done: Result<(), _> = redis::cmd("DEBUG").arg("RELOAD").query_async(&mut reloading).await;
    });
    let started = Instant::now();
    let mut causes = Vec::new();
    while started.elapsed() < Duration::from_secs(20) && !causes.contains(&"loading") {
        causes.extend(store.ping().await.err().map(|error| error.cause()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(causes.contains(&"loading"), "{causes:?}");
}

#[tokio::test]
async fn something_that_is_no_redis_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new(); // else what was sent may be lost with the connection
        while let Ok((mut stream, _)) = listener.accept().await {
            let _sent =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            open.push(stream);
        }
    });
    let store = open(&config(redis_target(format!("redis://127.0.0.1:{port}"))));
    let (cause, waited) = failure(&store).await;
    assert_eq!(cause, "protocol");
    assert!(waited < AT_ONCE, "{waited:?}");
}
