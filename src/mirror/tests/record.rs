//! Answers that hand out tokens.

use super::Who::{Good, Nobody};
use super::*;

#[test]
fn tokens_are_recorded_whatever_the_endpoint() {
    let begun = "sign-in this of me";
    let location = format!("http://x/#access_token={}&refresh_token={V1}", jwt(FRESH));
    let redirect = |request, status| {
        exchange(Nobody, request, status).header(LOCATION.as_str().to_owned().leak(), &location)
    };
    check([
        (exchange(Nobody, PASSWORD, 200).tokens(FRESH, V1), begun),
        (exchange(Nobody, "POST /token?grant_type=pkce", 200).tokens(FRESH, V1), begun),
        (exchange(Nobody, "POST /signup/", 200).tokens(FRESH, V1), begun),
        (exchange(Nobody, "POST /verify", 200).tokens(FRESH, V1), begun),
        (exchange(Nobody, "POST /passkeys/authentication/verify", 200).tokens(FRESH, V1), begun),
        (redirect("GET /verify?token=x", 303), begun),
        (redirect("GET /callback?code=x", 302), begun),
        (redirect("POST /sso/saml/acs", 302), begun),
        (redirect("GET /authorize", 302), "refresh this of me"),
        (exchange(Nobody, "POST /future/sign-in", 200).tokens(FRESH, V1), "refresh this of me"),
        (exchange(Nobody, "GET /future", 200).tokens(FRESH, V1), ""),
        (exchange(Nobody, "POST /factors", 200).tokens(FRESH, V1), ""),
        (exchange(Nobody, PASSWORD, 400).tokens(FRESH, V1), ""),
        (exchange(Nobody, "POST /signup", 200).answer(r#"{"id":"x"}"#), ""),
        (exchange(Nobody, "POST /verify", 200).answer(r#"{"code":"200","msg":"x"}"#), ""),
        (
            exchange(Nobody, "GET /callback", 302)
                .header("location", "http://x/?code=1")
                .header("sb-auth-session-id", SESSION),
            "",
        ),
        (
            exchange(Nobody, "POST /signup", 403)
                .header("sb-auth-session-id", SESSION)
                .answer(r#"{"code":403,"error_code":"unknown","msg":"not today"}"#),
            "",
        ),
    ]);
}

#[test]
fn sources_that_contradict_each_other_record_nothing() {
    let sign_in = |claims| exchange(Nobody, PASSWORD, 200).tokens(claims, V1);
    let session = "sb-auth-session-id";
    let user = "sb-auth-user-id";
    let odd = r#"{"sub":"U","session_id":"custom","exp":13600}"#;
    check([
        (sign_in(FRESH).header(session, SESSION).header(user, USER), "sign-in this of me"),
        (sign_in(FRESH).header(session, OTHER_SESSION), "contradiction"),
        (sign_in(FRESH).header(session, "nonsense"), "contradiction"),
        (sign_in(FRESH).header(user, OTHER), "contradiction"),
        (sign_in(odd), "no_session"),
        (sign_in(odd).header(session, SESSION), "contradiction"),
        (sign_in(NO_SESSION), "no_session"),
        (sign_in(NO_SESSION).header(session, SESSION), "sign-in this of me"),
        (
            sign_in(r#"{"sub":"0191d1a0-0000-7000-8000-00000000000b","session_id":"S","exp":1}"#),
            "contradiction",
        ),
        (sign_in(r#"{"session_id":"S","exp":1}"#), "bad_token"),
        (sign_in(r#"{"sub":"U","session_id":"S"}"#), "bad_token"),
        (sign_in(r#"{"sub":"U","session_id":7,"exp":1}"#), "bad_token"),
        (
            exchange(Nobody, PASSWORD, 200).answer(r#"{"access_token":"opaque","refresh_token":"r"}"#),
            "bad_token",
        ),
        (
            exchange(Nobody, REFRESH, 200).body(refreshing(&v2(OTHER_SESSION, 3))).tokens(FRESH, V1),
            "contradiction",
        ),
        (exchange(Nobody, PASSWORD, 200).tokens(FRESH, &v2(OTHER_SESSION, 0)), "contradiction"),
        (exchange(Nobody, PASSWORD, 200).tokens(FRESH, &v2(SESSION, 0)), "sign-in this of me"),
    ]);
}

#[test]
fn a_sign_in_is_told_from_a_refresh_and_in_doubt_it_is_none() {
    let form = |grant: &str| format!("grant_type={grant}&refresh_token={V1}");
    let oauth = "POST /oauth/token";
    let new = |request| exchange(Nobody, request, 200).header("sb-auth-session-id", SESSION);
    let first = v2(SESSION, 0);
    check([
        (exchange(Nobody, REFRESH, 200).body(refreshing(V1)).tokens(FRESH, V1), "refresh this of me"),
        (
            exchange(Nobody, "POST /token?grant_type=password&grant_type=refresh_token", 200)
                .tokens(FRESH, V1),
            "sign-in this of me",
        ),
        (
            exchange(Nobody, oauth, 200).body(form("authorization_code")).tokens(FRESH, V1),
            "sign-in this of me",
        ),
        (exchange(Nobody, oauth, 200).body(form("refresh_token")).tokens(FRESH, V1), "refresh this of me"),
        (exchange(Nobody, oauth, 200).tokens(FRESH, V1), "refresh this of me"),
        (new(oauth).tokens(FRESH, &first), "sign-in this of me"),
        (new("POST /future").tokens(FRESH, &first), "sign-in this of me"),
        (new("POST /future").tokens(FRESH, &v2(SESSION, 1)), "refresh this of me"),
        (new("POST /future").tokens(FRESH, V1), "refresh this of me"),
        (
            new("POST /future").header("sb-auth-refresh-token-reuse", "false").tokens(FRESH, &first),
            "refresh this of me",
        ),
        (exchange(Nobody, "POST /future", 200).tokens(FRESH, &first), "refresh this of me"),
    ]);
}

#[test]
fn a_second_factor_raises_its_session_and_ends_those_without() {
    let raised = "refresh this of me, end aal1 but this of me (mfa_verified)";
    let verify = |who, status| exchange(who, "POST /factors/f/verify", status);
    let theirs = r#"{"sub":"U","session_id":"0191d1a0-0000-7000-8000-000000000002","exp":13600}"#;
    check([
        (verify(Good(ME_AAL1), 200).tokens(FRESH, V1), raised),
        (exchange(Good(ME_AAL1), "POST /factors/recovery-codes/verify", 200).tokens(FRESH, V1), raised),
        (verify(Good(theirs), 200).tokens(FRESH, V1), "contradiction"),
        (verify(Good(ME_AAL1), 422).code("mfa_verification_failed"), ""),
        (verify(Good(ME_AAL1), 403).code("mfa_verification_rejected"), "end all of me (mfa_rejected)"),
        (exchange(Good(ME), "GET /user", 403).code("mfa_verification_rejected"), ""),
    ]);
    verify(Good(ME_AAL1), 200).tokens(FRESH, V1).decide(|asked, answered| {
        let decision = mirror().after(asked, answered);
        let record = recorded(&decision);
        assert_eq!(record.aal, Some(Aal::Aal2));
        assert_eq!((&record.ip, &record.user_agent), (&None, &None));
    });
}

fn recorded<'a>(decision: &'a Decision<'_>) -> &'a Record {
    match decision.changes.first() {
        Some(Change::Record { record, .. }) => record,
        other => panic!("{other:?} is no record"),
    }
}

#[test]
fn a_sign_in_begins_now_and_a_refresh_when_its_token_says() {
    exchange(Nobody, PASSWORD, 200).tokens(FRESH, V1).decide(|asked, answered| {
        let decision = mirror().after(asked, answered);
        let record = recorded(&decision);
        assert_eq!((record.created_at, record.began_ms, record.begun_by_ms), (NOW, NOW * 1000, 0));
        assert_eq!((record.refreshed_at, record.expires_at), (10_000, 13_600));
        assert_eq!(record.seen_at, Some(NOW));
        assert_eq!(record.ip.as_deref(), Some("203.0.113.7"));
        assert_eq!(record.user_agent.as_deref(), Some("browser"));
        assert_eq!(record.amr.as_deref(), Some("password"));
        let current = RefKey::new(b"key").reference(&RefreshToken::new(V1));
        assert_eq!((record.refresh_ref.as_ref(), &record.previous_ref), (Some(&current), &None));
        assert!(decision.issued.is_some());
    });
    let refresh = exchange(Nobody, REFRESH, 200).body(refreshing("before")).tokens(FRESH, V1);
    refresh.decide(|asked, answered| {
        let decision = mirror().after(asked, answered);
        let record = recorded(&decision);
        assert_eq!((record.created_at, record.began_ms, record.begun_by_ms), (9_998, 0, asked.sent_ms));
        let before = RefKey::new(b"key").reference(&RefreshToken::new("before"));
        assert_eq!(record.previous_ref, Some(before));
    });
    // The token that was sent comes back: there is no other to remember.
    let unchanged = exchange(Nobody, REFRESH, 200).body(refreshing(V1)).tokens(FRESH, V1);
    unchanged.decide(|asked, answered| {
        assert_eq!(recorded(&mirror().after(asked, answered)).previous_ref, None);
        let keyless = Mirror::new(None, Duration::ZERO).after(asked, answered);
        assert_eq!(recorded(&keyless).refresh_ref, None);
    });
}

/// Only where GoTrue asks, in every release, whether the user is banned.
#[test]
fn tokens_that_gotrue_refuses_to_banned_users_prove_that_the_user_is_none() {
    let form = format!("grant_type=refresh_token&refresh_token={V1}");
    let code = format!("grant_type=authorization_code&refresh_token={V1}");
    let table = [
        (PASSWORD, None, true),
        (REFRESH, Some(refreshing(V1)), true),
        ("POST /oauth/token", Some(form), true),
        ("POST /verify", None, true),
        ("POST /oauth/token", Some(code), false),
        ("POST /token?grant_type=pkce", None, false),
        ("POST /token?grant_type=id_token", None, false),
        ("POST /signup", None, false),
        ("POST /callback", None, false),
        ("POST /factors/f/verify", None, false),
        ("POST /future/sign-in", None, false),
    ];
    for (request, body, proves) in table {
        let asked = Exchange { body, ..exchange(Good(ME), request, 200) }.tokens(FRESH, V1);
        asked.decide(|asked, answered| {
            let decision = mirror().after(asked, answered);
            let Some(Change::Record { allowed_ms, .. }) = decision.changes.first() else {
                panic!("{request} records nothing");
            };
            assert_eq!(*allowed_ms, proves.then_some(SENT_MS), "{request}");
        });
    }
}

#[test]
fn an_answer_that_could_not_be_read_is_counted() {
    for cause in [Unrecorded::TooLarge, Unrecorded::Encoded, Unrecorded::CutOff] {
        exchange(Nobody, PASSWORD, 200).tokens(FRESH, V1).decide(|asked, answered| {
            let lost = Answered { body: Body::Lost(cause), ..*answered };
            let decision = mirror().after(asked, &lost);
            assert_eq!(decision.unrecorded, Some(cause));
            assert!(decision.changes.is_empty() && decision.issued.is_none());
        });
    }
}

/// How long a login's answer takes to be read and decided; printed with `--nocapture`. The bound
/// only catches a blunder.
#[test]
fn the_cost_of_a_login_stays_small() {
    let filler = "x".repeat(900);
    let claims = FRESH.replace("\"role\"", &format!("\"user_metadata\":{{\"x\":\"{filler}\"}},\"role\""));
    let login = exchange(Nobody, PASSWORD, 200).tokens(&claims, &v2(SESSION, 0));
    login.decide(|asked, answered| {
        let mirror = mirror();
        let started = std::time::Instant::now();
        for _ in 0..500 {
            assert_eq!(mirror.after(asked, answered).changes.len(), 1);
        }
        let each = started.elapsed() / 500;
        println!("login: {each:?} for an answer of {} bytes", login.answer.len());
        assert!(each < Duration::from_millis(5), "{each:?}");
    });
}
