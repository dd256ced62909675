//! The operator's hand: `gotrue-sidecar sessions`, on a real Redis; and the audit lines of it and of the session API.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use gotrue_sidecar::{
    clock,
    config::{self, RedisTarget, Secret, SecretSource, StoreTarget},
    session::{Aal, Change, FactorId, Origin, Record, RefreshRef, SessionId, Sought, State, UserId},
    store::{Source, Store},
};
use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{
    client::admin::signed,
    http::send,
    issuer::{self, SECRET},
    process::{Process, run},
    redis::RedisServer,
    upstream::Upstream,
};

fn store(redis: &RedisServer) -> Store {
    let url = SecretSource::Value(Secret::new(redis.url()));
    let config = config::Store {
        target: StoreTarget::Redis(Box::new(RedisTarget::at(url))),
        key_prefix: "gotrue".to_owned(),
        timeout: Duration::from_secs(5),
        ref_key: None,
        wait_replicas: 0,
        memory_max_sessions: 10,
    };
    Source::new(&config, Duration::from_secs(30 * 86_400)).unwrap().connect()
}

fn uuid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("09e4a704-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn signed_in(store: &Store, user: UserId, ago: u64) -> SessionId {
    let (session, now) = (SessionId::parse(&uuid()).unwrap(), clock::seconds());
    let record = Record {
        user,
        session,
        refresh_ref: RefreshRef::parse(&"r".repeat(43)),
        previous_ref: None,
        counter: None,
        created_at: now - ago,
        began_ms: (now - ago) * 1000,
        begun_by_ms: 0,
        refreshed_at: now - ago,
        seen_at: None,
        expires_at: now + 3600,
        aal: Some(Aal::Aal1),
        factor_id: FactorId::parse_as_gotrue("0191d1a0-0000-7000-8000-0000000000f1"),
        amr: Some("password".to_owned()),
        role: None,
        client_id: None,
        anonymous: false,
        ip: Some("203.0.113.7".to_owned()),
        user_agent: Some("a phone\u{1b}[2J\u{9b}2J".to_owned()),
    };
    let change = Change::Record { origin: Origin::SignIn, allowed_ms: None, record: Box::new(record) };
    store.apply(&[change], now).await.unwrap();
    session
}

/// Exit code, stdout and stderr.
fn sessions(redis: &RedisServer, args: &[&str]) -> (i32, String, String) {
    let url = format!("--store-url={}", redis.url());
    let all = [&["sessions"], args, &[url.as_str(), "--store-timeout=10s"]].concat();
    let output = run(&all);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn an_operator_lists_shows_and_revokes_with_nothing_but_the_store() {
    let redis = RedisServer::start();
    let store = store(&redis);
    let user = UserId::parse(&uuid()).unwrap();
    let (older, newer) = (signed_in(&store, user, 50).await, signed_in(&store, user, 10).await);
    let (user_id, older_id, newer_id) = (user.to_string(), older.to_string(), newer.to_string());

    let (code, listed, _) = sessions(&redis, &["list", "--user", &user_id, "--json"]);
    let found: Value = serde_json::from_str(&listed).unwrap();
    let ids: Vec<_> = found["sessions"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
    assert_eq!((code, ids), (0, vec![json!(newer_id), json!(older_id)]));
    let (code, text, _) = sessions(&redis, &["list", "--user", &user_id]);
    assert_eq!((code, text.lines().count()), (0, 2));
    assert!(text.starts_with(&newer_id) && text.contains("ip=203.0.113.7"), "{text}");

    let show = ["show", "--user", &user_id, "--session", &older_id];
    let (code, shown, _) = sessions(&redis, &show);
    assert_eq!(code, 0);
    let (code, shown_json, _) = sessions(&redis, &[&show[..], &["--json"]].concat());
    assert_eq!(
        (code, serde_json::from_str::<Value>(&shown_json).unwrap()["id"].clone()),
        (0, json!(older_id))
    );
    // no secret, and nothing that commands a terminal
    for text in [&listed, &text, &shown, &shown_json] {
        assert!(!text.contains("rrrr") && !text.contains("0000000000f1"), "{text}");
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    }

    let revoke = ["revoke", "--user", &user_id, "--session", &older_id, "--json"];
    let (code, said, log) = sessions(&redis, &revoke);
    assert_eq!((code, said.as_str()), (0, "{\"revoked\":1}\n"));
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(
        [&line["target"], &line["actor"], &line["result"], &line["reason"], &line["route"], &line["session"]],
        [
            &json!("audit"),
            &json!("operator"),
            &json!("ended"),
            &json!("revoked"),
            &json!("sessions revoke"),
            &json!(older_id)
        ]
    );
    assert!(line["actor_uid"].is_number(), "{line}");
    assert_eq!(store.lookup(&Sought::of(user, older), clock::seconds()).await.unwrap(), State::Revoked);
    let (code, said, log) = sessions(&redis, &revoke);
    assert_eq!((code, said.as_str()), (4, ""));
    assert!(log.contains("not_found") && log.contains("no such live session"), "{log}");
    assert_eq!(sessions(&redis, &show).0, 4);

    let (code, said, _) = sessions(&redis, &["revoke", "--user", &user_id]);
    assert_eq!((code, said.as_str()), (0, "revoked: 1\n"));
    let (code, said, _) = sessions(&redis, &["list", "--user", &user_id]);
    assert_eq!((code, said.as_str()), (0, "no live sessions\n"));
}

#[tokio::test]
async fn a_users_very_many_sessions_are_all_gone_when_it_returns() {
    let redis = RedisServer::start();
    let store = store(&redis);
    let user = UserId::parse(&uuid()).unwrap();
    for _ in 0..600 {
        signed_in(&store, user, 10).await;
    }
    let (code, said, _) = sessions(&redis, &["revoke", "--user", &user.to_string()]);
    assert_eq!((code, said.as_str()), (0, "revoked: 600\n"));
    let mut client = redis.client().await;
    let records: Vec<String> = redis::cmd("KEYS").arg("*:session:*").query_async(&mut client).await.unwrap();
    assert_eq!(records, [""; 0]);
}

#[tokio::test]
async fn what_it_cannot_do_it_says_with_its_exit_code() {
    let redis = RedisServer::start();
    let (user, session) = (uuid(), uuid());
    for (args, code, says) in [
        (&["revoke", "--session", &session][..], 2, "expected --user; the store keeps sessions by user"),
        (&["show", "--user", &user], 2, "sessions show: expected --session"),
        (&["list", "--user", &user, "--session", &session], 2, "expected no --session"),
        (&["list", "--user", "somebody"], 2, "--user: expected a UUID"),
        (&["list", "--user", &user, "--repair"], 2, "--repair"),
        (&["erase", "--user", &user], 2, "argument 2"),
        (&["--user", &user], 2, "<action>"),
    ] {
        let (found, out, err) = sessions(&redis, args);
        assert_eq!((found, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
    }
    for (store, code) in
        [("--store-url=memory:", 2), ("--store-key-prefix=x", 2), ("--store-url=redis://127.0.0.1:1", 1)]
    {
        let output = run(&["sessions", "list", "--user", &user, store]);
        assert_eq!(output.status.code(), Some(code), "{store} {output:?}");
        assert!(output.stdout.is_empty());
    }
}

/// Who ended what, when, why, by which route, with which result; and who tried.
#[tokio::test]
async fn every_call_that_revokes_or_is_refused_is_an_audit_line() {
    let mut redis = RedisServer::start();
    let upstream = Upstream::start(issuer::gotrue).await;
    let (upstream_url, url) =
        (format!("--upstream-url={}", upstream.url), format!("--store-url={}", redis.url()));
    let secret = format!("--jwt-secret={SECRET}");
    let process =
        Process::start(&[&upstream_url, &url, &secret, "--session-api-enabled=true", "--store-timeout=10s"])
            .await;
    let store = store(&redis);
    let user = UserId::parse(&uuid()).unwrap();
    let (own, other) = (signed_in(&store, user, 9).await, signed_in(&store, user, 5).await);
    let (user, own, other) = (user.to_string(), own.to_string(), other.to_string());
    let token = signed(
        SECRET,
        &json!({"sub": user, "session_id": own, "role": "authenticated", "exp": clock::seconds() + 99}),
    );
    let service = signed(SECRET, &json!({"role": "service_role"}));
    let delete = async |target: &str, token: &str, id: &str| {
        let request = Request::builder().method(Method::DELETE).uri(format!("{}{target}", process.url));
        let request = request.header("authorization", format!("Bearer {token}")).header("x-request-id", id);
        send(request.body(String::new()).unwrap()).await.unwrap().status.as_u16()
    };
    let of_other = format!("/sessions/{other}");
    let all = format!("/admin/users/{user}/sessions");
    assert_eq!(delete(&of_other, &token, "one").await, 204);
    assert_eq!(delete(&of_other, &token, "again").await, 404);
    assert_eq!(delete(&all, &token, "tried").await, 403);
    assert_eq!(delete(&all, &format!("{service}x"), "forged").await, 403);
    assert_eq!(delete(&all, &service, "all").await, 204);
    redis.kill();
    assert_eq!(delete(&all, &service, "down").await, 503);
    let line = async |id: &str| -> Value {
        let said = format!("\"request_id\":\"{id}\"");
        for nth in 1.. {
            let line: Value = serde_json::from_str(&process.nth_line(nth, &said).await).unwrap();
            if line["target"] == "audit" {
                return line;
            }
        }
        unreachable!()
    };
    for (id, expected) in [
        (
            "one",
            json!({"user": user, "which": "one", "session": other, "reason": "revoked", "result": "ended", "count": 1,
            "actor": "user", "actor_session": own, "route": "/sessions/{id}"}),
        ),
        (
            "again",
            json!({"user": user, "session": other, "result": "not_found", "count": 0, "actor": "user"}),
        ),
        (
            "tried",
            json!({"user": user, "session": own, "result": "refused", "reason": "not_admin",
            "route": "/admin/users/{id}/sessions"}),
        ),
        ("forged", json!({"user": null, "result": "refused", "reason": "bad_token"})),
        (
            "all",
            json!({"user": user, "which": "all", "result": "ended", "count": 1, "actor": "admin",
            "actor_role": "service_role", "route": "/admin/users/{id}/sessions"}),
        ),
        ("down", json!({"user": user, "which": "all", "result": "failed", "actor": "admin"})),
    ] {
        let line = line(id).await;
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&line[name], value, "{name} of {id}: {line}");
        }
        assert!(line["ts"].is_string());
    }
    for secret in [&token, &service] {
        assert!(!process.stderr().contains(secret.as_str()));
    }
}
