//! Bodies that are read, and those that are not.

use super::Who::{Good, Nobody};
use super::*;

#[test]
fn only_bodies_that_can_matter_are_read() {
    use Inspection::{Hold, Pass, Tee};
    let json = "application/json; charset=utf-8";
    let table = [
        ("POST /token?grant_type=password", 200, json, false, Hold),
        ("POST /token?grant_type=refresh_token", 200, json, true, Hold),
        ("POST /token?grant_type=refresh_token", 400, json, true, Hold),
        ("POST /token?grant_type=password", 400, json, false, Pass),
        ("POST /oauth/token", 200, json, true, Hold),
        ("POST /signup", 200, json, false, Hold),
        ("POST /factors/f/verify", 200, json, false, Hold),
        ("GET /verify", 303, "text/html", false, Pass),
        ("GET /user", 200, json, false, Pass),
        ("PUT /user", 200, json, true, Pass),
        ("POST /logout", 204, json, false, Pass),
        ("POST /factors", 200, json, false, Pass),
        ("POST /admin/generate_link", 200, json, false, Pass),
        ("POST /admin/users", 200, json, false, Pass),
        (ADMIN_USER, 200, json, true, Pass),
        ("POST /future", 200, json, false, Tee),
        ("PATCH /future", 201, json, false, Tee),
        ("POST /future", 200, "text/plain", false, Pass),
        ("POST /future", 500, json, false, Pass),
        ("GET /future", 200, json, false, Pass),
        ("HEAD /future", 200, json, false, Pass),
        ("OPTIONS /future", 200, json, false, Pass),
        ("GET /settings", 200, json, false, Pass),
    ];
    for (request, status, content_type, reads, expected) in table {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        exchange(Nobody, request, status).decide(|asked, _| {
            assert_eq!(asked.reads_body(), reads, "{request}");
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(asked.inspection(status, &headers), expected, "{request} {status}");
        });
    }
    let code = HeaderName::from_static("x-sb-error-code");
    exchange(Good(ME), "GET /user", 403).decide(|asked, _| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(json));
        assert_eq!(asked.inspection(StatusCode::FORBIDDEN, &headers), Hold);
        headers.insert(code, HeaderValue::from_static("session_not_found"));
        assert_eq!(asked.inspection(StatusCode::FORBIDDEN, &headers), Pass);
    });
}

#[test]
fn nothing_that_was_sent_is_printed() {
    exchange(Good(ME), "POST /token?grant_type=refresh_token&canary=1", 200)
        .body(r#"{"refresh_token":"canary"}"#)
        .tokens(r#"{"sub":"U","session_id":"S","exp":1,"canary":1}"#, "canary")
        .decide(|asked, answered| {
            let decision = mirror().after(asked, answered);
            let printed = format!("{asked:?} {answered:?} {decision:?}");
            assert!(!printed.contains("canary") && !printed.contains("Bearer"), "{printed}");
        });
}
