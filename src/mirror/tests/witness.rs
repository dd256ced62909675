//! What a served request proves.

use super::Who::{Expired, Forged, Good, NoKeys, Nobody, UnknownKey};
use super::*;

#[test]
fn only_a_verified_token_that_gotrue_serves_proves_a_session() {
    let table = [
        (Good(ME), "GET /user", 200, true),
        (Good(ME), "GET /user/", 200, true),
        (Good(ME), "GET /user", 304, false),
        (Good(ME), "GET /user", 403, false),
        (Good(ME), "GET /user", 500, false),
        (Good(ME), "PUT /user", 200, false),
        (Good(ME), "GET /settings", 200, false),
        (Good(NO_SESSION), "GET /user", 200, false),
        (Good(NIL_SESSION), "GET /user", 200, false),
        (Good(ODD_SESSION), "GET /user", 200, false),
        (Good(ODD_SUB), "GET /user", 200, false),
        (Expired(ME), "GET /user", 200, false),
        (NoKeys(ME), "GET /user", 200, false),
        (UnknownKey(ME), "GET /user", 200, false),
        (Forged, "GET /user", 200, false),
        (Nobody, "GET /user", 200, false),
    ];
    for (who, request, status, expected) in table {
        exchange(who, request, status).decide(|asked, answered| {
            let change = witnessed(asked, answered);
            let said = change.as_ref().map(words);
            let expected = expected.then(|| "refresh this of me".to_owned());
            assert_eq!(said, expected, "{request} {status}");
        });
    }
}

#[test]
fn it_says_what_the_token_says() {
    exchange(Good(FRESH), "GET /user", 200).decide(|asked, answered| {
        let Some(Change::Record { record, .. }) = witnessed(asked, answered) else {
            panic!("nothing was witnessed");
        };
        assert_eq!((record.created_at, record.began_ms, record.begun_by_ms), (9_998, 0, asked.sent_ms));
        assert_eq!((record.refreshed_at, record.expires_at), (10_000, 13_600));
        assert_eq!((record.refresh_ref, record.aal), (None, Some(Aal::Aal1)));
        assert_eq!(
            (record.amr.as_deref(), record.role.as_deref()),
            (Some("password"), Some("authenticated"))
        );
        assert_eq!((record.ip, record.user_agent), (None, None));
    });
}
