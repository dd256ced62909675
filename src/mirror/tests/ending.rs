//! Requests to which GoTrue agreed.

use super::Who::{Expired, Good, NoKeys, Nobody};
use super::*;

#[test]
fn a_logout_ends_its_own_session_first_and_the_others_once_gotrue_agrees() {
    let own = "end this of me (logout) here | end this of me (logout), end all of me (logout)";
    check([
        (exchange(Good(ME), "POST /logout", 204), own),
        (exchange(Good(ME), "POST /logout?scope=global", 204), own),
        (exchange(Good(ME), "POST /logout?scope=%zz", 204), own),
        (
            exchange(Good(ME), "POST /logout?scope=local", 204),
            "end this of me (logout) here | end this of me (logout)",
        ),
        (exchange(Good(ME), "POST /logout?scope=others", 204), "end all but this of me (logout)"),
        (exchange(Good(ME), "POST /logout?scope=all", 400), ""),
        (exchange(Good(ME), "POST /logout?scope=all", 204), ""),
        (exchange(Good(ME), "POST /logout", 500), "end this of me (logout) here | "),
        (exchange(Good(ME), "POST /logout", 502), "end this of me (logout) here | "),
        (exchange(Good(ME), "POST /logout/", 404), ""),
        (exchange(Good(ME), "GET /logout", 405), ""),
        (exchange(Nobody, "POST /logout", 401).code("no_authorization"), ""),
    ]);
}

#[test]
fn a_logout_without_a_session_means_all_and_with_an_odd_one_nothing() {
    let all = "end all of me (logout)";
    check([
        (exchange(Good(NO_SESSION), "POST /logout?scope=local", 204), all),
        (exchange(Good(NIL_SESSION), "POST /logout?scope=others", 204), all),
        (exchange(Good(NO_SESSION), "POST /logout?scope=local", 500), ""),
        (exchange(Good(ODD_SESSION), "POST /logout", 204), ""),
        (exchange(Good(ODD_SESSION), "POST /logout", 403).code("bad_jwt"), ""),
        (exchange(Good(NO_SUB), "POST /logout", 403).code("bad_jwt"), ""),
        (exchange(Good(ODD_SUB), "POST /logout", 400).code("bad_jwt"), ""),
    ]);
}

#[test]
fn an_expired_token_ends_its_own_session_for_a_while() {
    check([
        (exchange(Expired(LATELY), "POST /logout", 403).code("bad_jwt"), "end this of me (logout) here | "),
        (
            exchange(Expired(LATELY), "POST /logout?scope=local", 403).code("bad_jwt"),
            "end this of me (logout) here | ",
        ),
        (exchange(Expired(LATELY), "POST /logout?scope=others", 403).code("bad_jwt"), ""),
        (exchange(Expired(LATELY), "POST /logout?scope=all", 403).code("bad_jwt"), ""),
        (exchange(Expired(LONG_AGO), "POST /logout", 403).code("bad_jwt"), ""),
    ]);
    let off = Mirror::new(None, Duration::ZERO);
    exchange(Expired(LATELY), "POST /logout", 403).decide(|asked, _| assert_eq!(off.before(asked), None));
}

#[test]
fn a_new_password_ends_the_other_sessions() {
    let set = r#"{"password":"x"}"#;
    let others = "end all but this of me (password_changed)";
    check([
        (exchange(Good(ME), "PUT /user", 200).body(set), others),
        (exchange(Good(ME), "PUT /user/", 200).body(set), others),
        (exchange(NoKeys(ME), "PUT /user", 200).body(set), others),
        (exchange(Good(ME), "PUT /user", 200).body(r#"{"Password":"x"}"#), others),
        (exchange(Good(ME), "PUT /user", 200).body(r#"{"password":null}"#), ""),
        (exchange(Good(ME), "PUT /user", 200).body(r#"{"data":{}}"#), ""),
        (exchange(Good(ME), "PUT /user", 422).body(set).code("same_password"), ""),
        (exchange(Good(ME), "PUT /user", 200), ""),
        (exchange(Good(NO_SESSION), "PUT /user", 200).body(set), "end all of me (password_changed)"),
        (exchange(Good(ODD_SESSION), "PUT /user", 200).body(set), ""),
    ]);
}

#[test]
fn what_an_admin_does_to_a_user_is_followed() {
    let banned = r#"{"id":"x","banned_until":"1970-01-01T05:00:00.5Z"}"#;
    check([
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200).body(r#"{"password":"x"}"#),
            "end all of me (password_changed)",
        ),
        (exchange(Good(NO_SUB), ADMIN_USER, 200).body(r#"{"password":null}"#), ""),
        (exchange(Good(NO_SUB), ADMIN_USER, 200).body(r#"{"role":"x"}"#).answer(banned), ""),
        (exchange(Good(NO_SUB), ADMIN_USER, 403).body(r#"{"password":"x"}"#).code("not_admin"), ""),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200).body(r#"{"ban_duration":"1h"}"#).answer(banned),
            "suspend me until Some(18001)",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200)
                .body(r#"{"ban_duration":"none"}"#)
                .answer(r#"{"id":"x","banned_until":null}"#),
            "suspend me until None",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200)
                .body(r#"{"ban_duration":"1h"}"#)
                .answer(r#"{"banned_until":"soon"}"#),
            "",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200)
                .body(r#"{"password":"x","ban_duration":"1h"}"#)
                .answer(banned),
            "end all of me (password_changed), suspend me until Some(18001)",
        ),
        (
            exchange(Good(NO_SUB), "DELETE /admin/users/0191d1a0-0000-7000-8000-00000000000a", 200)
                .answer("{}"),
            "end all of me (user_deleted)",
        ),
        (exchange(Good(NO_SUB), "DELETE /admin/users/me", 200), ""),
        (exchange(Good(NO_SUB), "DELETE /admin/oauth/clients/0191d1a0-0000-7000-8000-0000000000c1", 204), ""),
    ]);
}

#[test]
fn a_removed_factor_lowers_sessions_that_stand_on_it() {
    let by_user = "DELETE /factors/0191d1a0-0000-7000-8000-0000000000f1";
    let by_admin = "DELETE /admin/users/0191d1a0-0000-7000-8000-00000000000a/factors/0191d1a0-0000-7000-8000-0000000000f1";
    check([
        (exchange(Good(ME), by_user, 200), "lower me from factor"),
        // GoTrue looks at the session, whose token may be from before it was raised.
        (exchange(Good(ME_AAL1), by_user, 200), "lower me from factor"),
        (exchange(Good(ME_AAL1), by_user, 422).code("insufficient_aal"), ""),
        (exchange(Good(NO_SUB), by_admin, 200), "lower me from factor"),
        (exchange(Good(NO_SUB), by_admin, 404).code("mfa_factor_not_found"), ""),
    ]);
}

#[test]
fn a_revoked_grant_ends_the_clients_sessions() {
    check([
        (
            exchange(
                Good(ME),
                "DELETE /user/oauth/grants?client_id=0191D1A0-0000-7000-8000-0000000000C1",
                204,
            ),
            "end client's client of me (grant_revoked)",
        ),
        (exchange(Good(ME), "DELETE /user/oauth/grants?client_id=x", 204), ""),
        (exchange(Good(ME), "DELETE /user/oauth/grants", 400).code("validation_failed"), ""),
    ]);
}

#[test]
fn a_tombstone_is_told_of_tokens_that_may_have_been_refreshed_since() {
    const SINCE: &str = r#"{"sub":"U","session_id":"S","iat":6500,"exp":10100}"#;
    const OVER: &str = r#"{"sub":"U","session_id":"S","iat":5900,"exp":9500}"#;
    const ODD: &str = r#"{"sub":"U","session_id":"S","iat":14000,"exp":13600}"#;
    let told = |change: &Change| match change {
        Change::End { expires_at, .. } => *expires_at,
        _ => unreachable!(),
    };
    for (who, until) in [
        (Good(ME), 13_600),
        (Good(FRESH), 13_600),
        (Good(SINCE), 13_599),
        (Expired(OVER), 13_599),
        (Good(ODD), 13_600),
    ] {
        for (request, status, code) in [
            ("POST /logout", 204, ""),
            ("POST /logout?scope=others", 204, ""),
            ("GET /user", 403, "session_not_found"),
        ] {
            let exchange = exchange(who, request, status).code(code);
            exchange.decide(|asked, answered| {
                let ended: Vec<_> = mirror()
                    .before(asked)
                    .into_iter()
                    .chain(mirror().after(asked, answered).changes)
                    .collect();
                assert!(!ended.is_empty(), "{request}");
                for change in &ended {
                    assert_eq!(told(change), Some(until), "{request}");
                }
            });
        }
    }
}
