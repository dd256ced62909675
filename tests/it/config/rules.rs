//! What keys have to do with each other, and with the files they name.

use std::fs;

use gotrue_sidecar::{
    cli::Stop,
    config::{
        SecretSource,
        keys::{Default, KEYS},
        reference,
    },
};

use super::{Call, file_with};

#[test]
fn contradictions_name_both_sides() {
    let table: &[(&str, &[&str])] = &[
        ("lookup: true", &["lookup (sidecar.yaml:1): needs a store"]),
        ("enforce: true", &["enforce (sidecar.yaml:1): needs a store"]),
        ("store: {password: canary}", &["store.password (sidecar.yaml:1): needs a store"]),
        ("readiness: {require: [store]}", &["readiness.require (sidecar.yaml:1): needs a store"]),
        ("logout:\n  expired_grace: 2h", &["logout.expired_grace (sidecar.yaml:2): needs a store"]),
        ("tls:\n  cert_file: a", &["tls.cert_file (sidecar.yaml:2): expected tls.key_file as well"]),
        ("tls:\n  key_file: a", &["tls.key_file (sidecar.yaml:2): expected tls.cert_file as well"]),
        (
            "store: {url: 'memory:'}\nenforce: true\nlookup: false",
            &["enforce (sidecar.yaml:2): needs lookup; expected lookup to be true"],
        ),
        ("check: {enabled: true}", &["check.enabled (sidecar.yaml:1): needs a store"]),
        ("check: {unknown: deny}", &["check.unknown (sidecar.yaml:1): needs a store"]),
        (
            "store: {url: 'memory:'}\ncheck:\n  enabled: true\njwt: {jwks: 'off'}",
            &["check.enabled (sidecar.yaml:3): needs a key that verifies tokens; expected jwt.secret or"],
        ),
        ("session_api: {enabled: true}", &["session_api.enabled (sidecar.yaml:1): needs a store"]),
        (
            "store: {url: 'memory:'}\nsession_api:\n  enabled: true\njwt: {jwks: 'off'}",
            &[
                "session_api.enabled (sidecar.yaml:3): needs a key that verifies tokens; expected jwt.secret or",
            ],
        ),
        (
            "store: {url: 'memory:'}\nrevoke:\n  upstream: mint",
            &[
                "revoke.upstream (sidecar.yaml:3): needs the symmetric secret to sign with; expected jwt.secret",
            ],
        ),
        ("session:\n  idle_timeout: 30m", &["session.idle_timeout (sidecar.yaml:2): needs a store"]),
        ("session:\n  absolute_timeout: 12h", &["session.absolute_timeout (sidecar.yaml:2): needs a store"]),
        ("session:\n  max_per_user: 3", &["session.max_per_user (sidecar.yaml:2): needs a store"]),
        ("session:\n  max_policy: deny", &["session.max_policy (sidecar.yaml:2): needs a store"]),
        (
            "store: {url: 'memory:'}\nsession:\n  idle_timeout: 299s",
            &[
                "session.idle_timeout (sidecar.yaml:3): too short: that a session is used is noted once a minute",
            ],
        ),
        (
            "store: {url: 'memory:'}\nsession:\n  idle_timeout: 30m\nlookup: false",
            &["session.idle_timeout (sidecar.yaml:3): needs lookup; expected lookup to be true"],
        ),
        (
            "store: {url: 'memory:'}\nsession:\n  ttl: 1h\n  idle_timeout: 61m",
            &[
                "session.idle_timeout (sidecar.yaml:4): longer than session.ttl, after which an unused session",
            ],
        ),
        (
            "upstream:\n  ca_file: a",
            &["upstream.ca_file (sidecar.yaml:2): is for TLS; expected upstream.url to begin with https://"],
        ),
        (
            "jwt:\n  secret: canary\n  secret_file: /a",
            &["jwt.secret (sidecar.yaml:2): given together with jwt.secret_file (sidecar.yaml:3)"],
        ),
        ("listen: 0.0.0.0:9464", &["listen (sidecar.yaml:1): listen and admin.listen are the same port"]),
        (
            "listen: 127.0.0.1:7000\nadmin:\n  listen: '[::]:7000'",
            &["admin.listen (sidecar.yaml:3): listen and admin.listen are the same port; expected"],
        ),
        ("listen: 127.0.0.1:9997", &["listen (sidecar.yaml:1): upstream.url is where listen is"]),
        (
            "upstream:\n  url: http://localhost:9999",
            &["upstream.url (sidecar.yaml:2): upstream.url is where listen is; expected GoTrue's"],
        ),
    ];
    assert_refused(table);
}

#[test]
fn contradictions_of_the_store_name_both_sides() {
    assert_refused(&[
        (
            "store:\n  url: redis://a\n  ca_file: a",
            &["store.ca_file (sidecar.yaml:3): is for TLS; expected store.url to begin with rediss://"],
        ),
        (
            "store:\n  url: redis://:canary@a\n  password: canary",
            &[
                "store.password (sidecar.yaml:3): given together with a password in store.url (sidecar.yaml:2)",
            ],
        ),
        (
            "store:\n  url: redis://u:canary@a\n  username: b",
            &["store.username (sidecar.yaml:3): given together with a user in store.url (sidecar.yaml:2)"],
        ),
        (
            "store:\n  url: redis+cluster://u@a",
            &["store.url (sidecar.yaml:2): expected a password of its user (in it, store.password or"],
        ),
        (
            "store:\n  url: redis+unix:///a\n  ca_file: a\n  tls_server_name: b\n  sentinel_username: c",
            &[
                "store.ca_file (sidecar.yaml:3): is for TLS; expected store.url to begin with rediss://",
                "store.tls_server_name (sidecar.yaml:4): is for TLS; expected store.url to begin with rediss://",
                "store.sentinel_username (sidecar.yaml:5): is for Sentinels; expected store.url to begin with",
            ],
        ),
        (
            "store:\n  url: redis://a\n  username: b",
            &["store.username (sidecar.yaml:3): expected store.password or store.password_file as well"],
        ),
        (
            "store:\n  url: rediss://a\n  client_cert_file: a",
            &["store.client_cert_file (sidecar.yaml:3): expected store.client_key_file as well"],
        ),
        (
            "store:\n  url: rediss://a\n  client_key_file: a",
            &["store.client_key_file (sidecar.yaml:3): expected store.client_cert_file as well"],
        ),
        (
            "store:\n  url: redis+cluster://a/1\n  tls_server_name: a\n  sentinel_password: canary",
            &[
                "store.tls_server_name (sidecar.yaml:3): is for TLS; expected store.url to begin with rediss://",
                "store.sentinel_password (sidecar.yaml:4): is for Sentinels; expected store.url to begin with",
                "store.url (sidecar.yaml:2): a Cluster has database 0 only; expected no database in it",
            ],
        ),
        (
            "store:\n  url: redis+sentinel://a/m\n  sentinel_username: b",
            &["store.sentinel_username (sidecar.yaml:3): expected store.sentinel_password or"],
        ),
        (
            "store:\n  url: redis://a\n  spool_dir: /\n  queue_changes: 0\n  queue_bytes: 0",
            &[
                "store.spool_dir (sidecar.yaml:3): keeps what waits for the store, and nothing may; expected store.queue_changes above 0",
                "store.spool_dir (sidecar.yaml:3): keeps what waits for the store, and nothing may; expected store.queue_bytes above 0",
            ],
        ),
    ]);
}

/// Each file is refused with problems that begin so, and with no others.
fn assert_refused(table: &[(&str, &[&str])]) {
    for (file, expected) in table {
        let problems = Call::with_file(file).arg("drain").refusal();
        assert_eq!(problems.len(), expected.len(), "{file}: {problems:?}");
        for (problem, expected) in problems.iter().zip(*expected) {
            assert!(problem.starts_with(expected), "{file}: {problem}");
            assert!(!problem.contains("canary"), "{problem}");
        }
    }
}

#[test]
fn a_default_written_out_asks_for_no_store() {
    for key in KEYS.iter() {
        if let Default::Value(text) = key.default {
            Call::with_file(&file_with(key, text)).invocation();
        }
    }
    Call::with_file("lookup: false\nenforce: false").invocation();
}

#[test]
fn ports_that_do_not_meet_are_no_contradiction() {
    for file in [
        "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}",
        "listen: 127.0.0.1:7000\nadmin: {listen: '127.0.0.2:7000'}",
        "listen: 127.0.0.1:9997\nupstream: {url: 'http://gotrue:9997'}",
        "listen: 10.0.0.1:9997",
    ] {
        Call::with_file(file).invocation();
    }
}

#[test]
fn settings_without_effect_are_warned_of() {
    let table = [
        ("store: {url: 'memory:', password: canary}", "store.password (sidecar.yaml:1): has no effect"),
        ("store: {url: 'memory:', wait_replicas: 2}", "store.wait_replicas (sidecar.yaml:1): has no effect"),
        (
            "store: {url: 'memory:'}\nsession:\n  max_policy: deny",
            "session.max_policy (sidecar.yaml:3): has no effect without session.max_per_user",
        ),
        (
            "store: {url: 'redis://a', memory_max_sessions: 7}",
            "store.memory_max_sessions (sidecar.yaml:1): has",
        ),
        ("jwt: {secret: canary}", "jwt.secret (sidecar.yaml:1): shorter than 32 bytes"),
        ("store: {url: 'memory:'}\njwt: {jwks: 'off'}", "jwt.jwks is off"),
    ];
    for (file, expected) in table {
        let call = Call::with_file(file);
        let warnings = call.invocation().warnings;
        assert_eq!(warnings.len(), 1, "{file}: {warnings:?}");
        let warning = warnings[0].replace(&format!("{}/", call.folder.path().display()), "");
        assert!(warning.starts_with(expected), "{warning}");
        assert!(!warning.contains("canary"), "{warning}");
    }
}

#[test]
fn a_default_that_is_written_down_is_not_warned_of() {
    let reference = reference::yaml().replace("#url: redis", "url: redis");
    assert_eq!(Call::with_file(&reference).invocation().warnings, [""; 0]);
}

#[test]
fn serve_and_validate_read_the_files_that_are_named_and_the_others_do_not() {
    let file = "tls: {cert_file: /no/cert, key_file: /no/key}\nstore:\n  url_file: /no/url\n";
    for command in ["serve", "validate"] {
        let problems = Call::with_file(file).arg(command).refusal();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            problems[2].starts_with("store.url_file (sidecar.yaml:3): expected a readable file at /no/url: ")
        );
    }
    for command in ["healthcheck", "drain", "--print-config"] {
        Call::with_file(file).arg(command).invocation();
    }
}

#[test]
fn what_a_file_holds_is_checked_like_a_value() {
    let table = [
        ("store.url_file", "canary", "expected memory:, redis://"),
        ("store.url_file", "redis://:canary@a", ""),
        (
            "store.url_file",
            "memory:",
            "expected the address of a Redis, such as redis://127.0.0.1:6379 in the file",
        ),
        ("jwt.secret_file", "\n", "expected something in the file"),
        ("jwt.keys_file", "canary", "expected a JSON array of JWKs in the file"),
        ("jwt.keys_file", "[]\n", ""),
    ];
    for (name, content, expected) in table {
        let call = Call::with_file("").arg("validate");
        let path = call.path("file");
        fs::write(&path, content).unwrap();
        let call = call.arg(format!("--{}", name.replace(['.', '_'], "-"))).arg(path);
        match (call.stop(), expected) {
            (Ok(_), "") => {}
            (Err(Stop::Refuse(text)), expected) => {
                assert!(!expected.is_empty() && text.contains(expected), "{text}");
                assert!(!text.contains("canary"), "{text}");
            }
            (other, _) => panic!("{name} {content}: {other:?}"),
        }
    }
}

#[test]
fn a_secret_file_ends_without_its_newline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for (content, expected) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
        fs::write(&path, content).unwrap();
        let secret = SecretSource::File(path.clone()).read().unwrap();
        assert_eq!(secret.reveal(), expected, "{content:?}");
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    for source in [SecretSource::File(path.clone()), SecretSource::File(folder.path().join("none"))] {
        let error = source.read().unwrap_err().to_string();
        assert!(error.starts_with("expected a readable file at "), "{error}");
    }
}

#[test]
fn two_passwords_are_one_too_many_wherever_they_are_kept() {
    let call = Call::with_file("").arg("validate");
    let (url, password) = (call.path("url"), call.path("password"));
    fs::write(&url, "redis://:canary@redis\n").unwrap();
    fs::write(&password, "canary\n").unwrap();
    let call = call.arg("--store-url-file").arg(url).arg("--store-password-file").arg(password);
    let problems = call.refusal();
    assert_eq!(
        problems,
        [
            "store.password_file (--store-password-file): given together with a password in store.url (--store-url-file); expected only one of them"
        ]
    );
}
