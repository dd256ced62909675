//! Requests that GoTrue refused.

use super::Who::{Expired, Forged, Good, NoKeys, Nobody, UnknownKey};
use super::*;

#[test]
fn a_token_that_does_not_verify_changes_nothing_unless_gotrue_agrees() {
    check([
        (exchange(Forged, "POST /logout", 403).code("bad_jwt"), ""),
        (exchange(Forged, "POST /logout", 204), "unverified"),
        (exchange(Forged, "DELETE /factors/f", 200), "unverified"),
        (exchange(Forged, "PUT /user", 200).body(r#"{"password":"x"}"#), "unverified"),
        (exchange(Forged, "PUT /user", 200).body(r#"{"data":{}}"#), ""),
        (exchange(Forged, "GET /user", 403).code("session_not_found"), "unverified"),
        (exchange(NoKeys(ME), "POST /logout", 204), "end this of me (logout), end all of me (logout)"),
        (exchange(UnknownKey(ME), "POST /logout?scope=local", 204), "end this of me (logout)"),
        (exchange(NoKeys(ME), "POST /logout", 500), ""),
        (exchange(NoKeys(ME), "GET /user", 403).code("session_not_found"), "unverified"),
        (exchange(UnknownKey(ME), "GET /user", 403).code("user_not_found"), "unverified"),
        (exchange(NoKeys(ME), "POST /factors/f/verify", 403).code("mfa_verification_rejected"), "unverified"),
        (exchange(Nobody, "GET /user", 403).code("session_not_found"), ""),
    ]);
}

#[test]
fn gotrues_refusals_bring_the_mirror_up_to_date() {
    let gone = "end this of me (unknown_to_gotrue)";
    let legacy = r#"{"code":403,"error_code":"session_not_found","msg":"x"}"#;
    let dated = r#"{"code":"session_not_found","message":"x"}"#;
    check([
        (exchange(Good(ME), "GET /user", 403).code("session_not_found"), gone),
        (exchange(Expired(LATELY), "GET /user", 403).code("session_not_found"), gone),
        (exchange(Good(ME), "GET /user", 403).answer(legacy), gone),
        (exchange(Good(ME), "POST /factors", 403).answer(dated), gone),
        (
            exchange(Good(ME), "POST /logout", 403).code("session_not_found"),
            "end this of me (logout) here | end this of me (unknown_to_gotrue)",
        ),
        (exchange(Good(ME), "GET /user", 403).code("user_not_found"), "end all of me (user_deleted)"),
        (exchange(Good(ME), "GET /user", 403).code("user_banned"), "suspend me at least until 13600"),
        (exchange(Good(ME), "POST /verify", 403).code("user_banned"), ""),
        (
            exchange(Good(ME), "POST /factors/f/verify", 403).code("user_banned"),
            "suspend me at least until 13600",
        ),
        (exchange(Good(NO_SESSION), "GET /user", 403).code("session_not_found"), ""),
        (exchange(Good(ME), "GET /user", 401).code("session_not_found"), ""),
        (exchange(Good(ME), "GET /user", 404).code("user_not_found"), ""),
        (exchange(Good(ME), "GET /user", 403).answer("not json"), ""),
        (
            exchange(Good(ME), "GET /user", 403)
                .answer(r#"{"code":403,"error_code":"unknown","msg":"session_not_found"}"#),
            "",
        ),
        (exchange(Good(ME), "GET /user", 403).header("content-type", "text/plain").answer(legacy), ""),
    ]);
}

#[test]
fn failed_refreshes_tell_what_became_of_the_session() {
    let refresh = |status| exchange(Nobody, REFRESH, status).body(refreshing(V1));
    let gone = "if known: end this of me (unknown_to_gotrue)";
    let reused = |header| {
        refresh(400).code("refresh_token_already_used").header("sb-auth-refresh-token-rotated", header)
    };
    let named =
        |exchange: Exchange| exchange.header("sb-auth-session-id", SESSION).header("sb-auth-user-id", USER);
    let oauth_form = |text: &str| {
        format!(r#"{{"error":"invalid_grant","error_description":"Invalid Refresh Token: {text}"}}"#)
    };
    check([
        (refresh(400).code("refresh_token_not_found"), gone),
        (refresh(400).answer(oauth_form("Refresh Token Not Found")), gone),
        (refresh(400).answer(oauth_form("Already Used")), ""),
        (refresh(400).answer(oauth_form("Session Expired")), ""),
        (refresh(400).answer(oauth_form("User Banned")), "if known: suspend me at least until 13600"),
        (named(refresh(400).code("user_banned")), "suspend me at least until 13600"),
        (refresh(400).code("refresh_token_already_used"), ""),
        (named(refresh(400).code("refresh_token_already_used")), ""),
        (named(reused("true")), "end this of me (refresh_reuse)"),
        (named(reused("false")), ""),
        (reused("true"), "if known: end this of me (refresh_reuse)"),
        (named(reused("true")).body(refreshing(&v2(OTHER_SESSION, 1))), "contradiction"),
        (named(refresh(400).code("session_expired")), ""),
        (refresh(409).code("conflict"), ""),
        (refresh(429).code("over_request_rate_limit"), ""),
        (refresh(500).code("unexpected_failure"), ""),
        (refresh(504).code("request_timeout"), ""),
        (exchange(Nobody, PASSWORD, 400).code("refresh_token_not_found"), ""),
        (exchange(Nobody, REFRESH, 400).body("{").code("refresh_token_not_found"), ""),
    ]);
}
