//! No secret comes out of the configuration, whatever is wrong with it or with what stands around it.

use gotrue_sidecar::{cli::Stop, config::keys::KEYS};
use proptest::prelude::*;

use super::{Call, file_with, samples};

/// Looks like nothing else, and is in no value that may be shown.
const CANARY: &str = "hunter2canary";

/// Everything that a call says.
fn said(call: &Call) -> String {
    match call.stop() {
        Ok(invocation) => format!("{invocation:?}{}", invocation.printed.as_deref().unwrap_or_default()),
        Err(Stop::Say(text) | Stop::Refuse(text)) => text,
    }
}

/// Good and bad values that hide the canary.
fn hiding() -> Vec<String> {
    vec![
        CANARY.to_owned(),
        format!("redis://user:{CANARY}@redis:6379/0"),
        format!("redis://{CANARY}@redis"),
        format!("redis://:{CANARY}#x@redis"),
        format!("redis+unix:///run/redis.sock?pass={CANARY}"),
        format!("rediss://:{CANARY}@redis:notaport"),
        format!("[{{\"k\":\"{CANARY}\"}}]"),
        format!("[{{\"k\":\"{CANARY}\""),
        format!("--{CANARY}"),
    ]
}

#[test]
fn no_secret_is_shown_whatever_its_place() {
    for key in KEYS.iter().filter(|key| key.secret) {
        for value in hiding() {
            for extra in ["--print-config", "--log-level=loud", "--no-such-flag", "validate"] {
                let calls = [
                    Call::with_file(&file_with(key, &value)),
                    Call::with_file("").env(&key.variable(), &value),
                    Call::with_file("").arg(key.flag()).arg(&value),
                    Call::with_file("").arg(format!("{}={value}", key.flag())),
                ];
                for call in calls {
                    let store = if key.name == "store.url" { "" } else { "redis://redis" };
                    let call = call.env("SIDECAR_STORE_URL", store).arg(extra);
                    let said = said(&call);
                    assert!(!said.contains(CANARY), "{} {value}: {said}", key.name);
                }
            }
        }
    }
}

#[test]
fn no_secret_is_shown_when_the_names_around_it_are_wrong() {
    let files = [
        format!("stor:\n  password: {CANARY}\n"),
        format!("store:\n  pasword: {CANARY}\n"),
        format!("store: {CANARY}\n"),
        format!("store:\n  password: [{CANARY}]\n"),
        format!("store:\n  password: {{{CANARY}: 1}}\n"),
        format!("store:\n  password: {CANARY}\n  password: {CANARY}\n"),
        format!("store:\n  password: {CANARY}\n bad\n"),
        format!("store:\n  password: '{CANARY}\n"),
        format!("store:\n  password: !tag {CANARY}\n"),
        format!("store:\n  password: *{CANARY}\n"),
        format!("jwt:\n  secret: {CANARY}: x\n"),
        format!("jwt:\n  secret: {CANARY}\n  secret_file: /no\n"),
        format!("jwt:\n  keys: |\n    [{{\"k\": \"{CANARY}\"\n"),
        format!("- {CANARY}\n"),
        CANARY.to_owned(),
    ];
    for file in files {
        let said = said(&Call::with_file(&file).arg("validate"));
        assert!(!said.contains(CANARY), "{file}: {said}");
    }
    let calls = [
        Call::with_file("").env("SIDECAR_STORE_PASWORD", CANARY),
        Call::with_file("").env("GOTRUE_JWT_KEYS", CANARY),
        Call::with_file("").env("GOTRUE_JWT_SECRET", CANARY).arg("--print-config"),
        Call::with_file("").args(["--store-pasword", CANARY]),
        Call::with_file("").arg(format!("--store-pasword={CANARY}")),
        Call::with_file("").args(["--store-password", "correct", CANARY]),
        Call::with_file("").args(["--store-password", CANARY, "--store-password", CANARY]),
        Call::with_file("").args(["--enforce", CANARY, "--store-url", CANARY, "--store-url"]),
        Call::with_file("").args(["validate", "drain", CANARY]),
        Call::with_file("").env("SIDECAR_STORE_PASSWORD", CANARY).arg("--help"),
    ];
    for call in calls {
        let said = said(&call);
        assert!(!said.contains(CANARY), "{:?}: {said}", call.args);
    }
}

#[test]
fn a_printed_store_keeps_what_is_no_secret() {
    let call = Call::with_file("").args([
        "--store-url",
        "rediss://user:hunter2canary@redis:6380/3",
        "--print-config",
    ]);
    let printed = call.invocation().printed.unwrap();
    assert!(printed.contains("url: \"rediss://(secret)@redis:6380/3\"  # --store-url\n"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_value_makes_it_panic(value in "[^\\x00]{0,60}", at in 0..KEYS.len()) {
        let key = &KEYS[at];
        let _ = key.kind.admits(&value);
        said(&Call::with_file("").arg("drain").arg(format!("{}={value}", key.flag())));
        said(&Call::with_file("").arg("drain").env(&key.variable(), &value));
    }

    #[test]
    fn no_value_with_a_wrong_letter_makes_it_panic(at in 0..KEYS.len(), cut in 0usize..40, letter in any::<char>()) {
        let key = &KEYS[at];
        for sample in samples(key) {
            let broken: String = sample
                .chars()
                .enumerate()
                .map(|(index, old)| if index == cut { letter } else { old })
                .collect();
            let _ = key.kind.admits(&broken);
        }
    }

    #[test]
    fn no_arguments_make_it_panic(args in prop::collection::vec("(--)?[a-z=-]{0,12}", 0..6)) {
        let mut call = Call::with_file("");
        for arg in args {
            call = call.arg(arg);
        }
        said(&call);
    }
}
