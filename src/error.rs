//! The answers the sidecar makes itself, and the one place where a failure becomes one of them.
//!
//! They have GoTrue's form for the API version the request asked for (`internal/api/errors.go`,
//! `HandleResponseError`), and GoTrue's CORS headers, so that a browser client can read them. Never
//! 500: auth-js drops the user's session on it.

use std::time::SystemTime;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, DATE, LOCATION, ORIGIN, RETRY_AFTER, VARY},
};

use crate::{body::Body, metrics::Refusal};

/// `X-Supabase-Api-Version`: the error form a client asks for.
pub const API_VERSION: HeaderName = HeaderName::from_static("x-supabase-api-version");
/// `X-Sb-Error-Code`: the code once more.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-sb-error-code");
/// The only version there is besides the form before it.
const VERSION_2024: &str = "2024-01-01";

/// Status, code and text of one refusal.
struct Words {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

/// What each refusal says. GoTrue's own codes where it has one (`apierrors/errorcode.go`).
fn words(refusal: Refusal) -> Words {
    let (status, code, message) = match refusal {
        Refusal::BadFraming => {
            (StatusCode::BAD_REQUEST, "validation_failed", "The request is malformed or ambiguous")
        }
        Refusal::BodyTooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_entity_too_large",
            "The request body is larger than this server reads",
        ),
        Refusal::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "request_header_fields_too_large",
            "The request head is larger than this server reads",
        ),
        Refusal::WrongPrefix => (StatusCode::NOT_FOUND, "not_found", "There is nothing at this path"),
        Refusal::UpstreamUnreachable => {
            (StatusCode::BAD_GATEWAY, "bad_gateway", "The authentication server cannot be reached")
        }
        Refusal::UpstreamTimeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "request_timeout",
            "The authentication server did not answer in time",
        ),
        Refusal::SessionRevoked | Refusal::SessionExpired => (
            StatusCode::FORBIDDEN,
            "session_not_found",
            "Session from session_id claim in JWT does not exist",
        ),
        Refusal::UserSuspended => (StatusCode::FORBIDDEN, "user_banned", "User is banned"),
        Refusal::RefreshRevoked => (
            StatusCode::BAD_REQUEST,
            "refresh_token_not_found",
            "Invalid Refresh Token: Refresh Token Not Found",
        ),
        Refusal::RefreshExpired => {
            (StatusCode::BAD_REQUEST, "session_expired", "Invalid Refresh Token: Session Expired")
        }
        // a code of our own: GoTrue has none, and clients must not take it for one about the session they have
        Refusal::TooManySessions => {
            (StatusCode::FORBIDDEN, "too_many_sessions", "User has reached the maximum number of sessions")
        }
        Refusal::StoreUnavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "The session store cannot be reached")
        }
        Refusal::NoKeys => (
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable",
            "There is no key to verify this token with",
        ),
        Refusal::NoToken
        | Refusal::BadToken
        | Refusal::TokenExpired
        | Refusal::TokenWithoutUser
        | Refusal::TokenOddUser
        | Refusal::TokenOddSession
        | Refusal::TokenWithoutSession
        | Refusal::TokenWithoutExpiry
        | Refusal::NotAdmin => return words_to_callers(refusal),
        Refusal::OddUserPath
        | Refusal::OddSessionPath
        | Refusal::UnknownScope
        | Refusal::NoUserId
        | Refusal::BadPage
        | Refusal::NoSuchSession => return words_about_requests(refusal),
    };
    Words { status, code, message }
}

/// What GoTrue says to those who may not (`internal/api/auth.go`); of a bad token only the common part, the rest
/// varies with the library that read it.
fn words_to_callers(refusal: Refusal) -> Words {
    let (status, code, message) = match refusal {
        Refusal::NoToken => {
            (StatusCode::UNAUTHORIZED, "no_authorization", "This endpoint requires a valid Bearer token")
        }
        Refusal::TokenExpired => (
            StatusCode::FORBIDDEN,
            "bad_jwt",
            "invalid JWT: unable to parse or verify signature, token has invalid claims: token is expired",
        ),
        Refusal::TokenWithoutUser => (StatusCode::FORBIDDEN, "bad_jwt", "invalid claim: missing sub claim"),
        Refusal::TokenOddUser => {
            (StatusCode::BAD_REQUEST, "bad_jwt", "invalid claim: sub claim must be a UUID")
        }
        Refusal::TokenOddSession => {
            (StatusCode::FORBIDDEN, "bad_jwt", "invalid claim: session_id claim must be a UUID")
        }
        Refusal::TokenWithoutSession => {
            (StatusCode::UNAUTHORIZED, "bad_jwt", "invalid claim: missing session_id claim")
        }
        Refusal::TokenWithoutExpiry => {
            (StatusCode::UNAUTHORIZED, "bad_jwt", "invalid claim: missing exp claim")
        }
        Refusal::NotAdmin => (StatusCode::FORBIDDEN, "not_admin", "User not allowed"),
        _ => (StatusCode::FORBIDDEN, "bad_jwt", "invalid JWT: unable to parse or verify signature"),
    };
    Words { status, code, message }
}

/// What is wrong with a request to the session API (contract §7), in the words of GoTrue's own admin routes.
fn words_about_requests(refusal: Refusal) -> Words {
    let (status, code, message) = match refusal {
        Refusal::OddUserPath => (StatusCode::NOT_FOUND, "validation_failed", "user_id must be an UUID"),
        Refusal::OddSessionPath => (StatusCode::NOT_FOUND, "validation_failed", "session_id must be an UUID"),
        Refusal::UnknownScope => {
            (StatusCode::BAD_REQUEST, "validation_failed", "scope must be others or global")
        }
        Refusal::NoUserId => {
            (StatusCode::BAD_REQUEST, "validation_failed", "user_id must be given in the query, as an UUID")
        }
        Refusal::BadPage => (
            StatusCode::BAD_REQUEST,
            "validation_failed",
            "Bad Pagination Parameters: page and per_page must be whole numbers, per_page at least 1",
        ),
        _ => (StatusCode::NOT_FOUND, "session_not_found", "Session not found"),
    };
    Words { status, code, message }
}

/// The form and the headers that a request's own headers ask for; taken before the request is sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The form of API version 2024-01-01.
    dated: bool,
    /// The request came from a browser page.
    cross_origin: bool,
}

impl Form {
    /// As whoever asks about somebody else's request wants it: CORS is between that somebody and them.
    pub fn asked_beside(headers: &HeaderMap) -> Self {
        Self { cross_origin: false, ..Self::asked_by(headers) }
    }

    /// Reads `X-Supabase-Api-Version` and `Origin`.
    pub fn asked_by(headers: &HeaderMap) -> Self {
        let dated = headers.get(API_VERSION).is_some_and(|version| is_dated(version.as_bytes()));
        Self { dated, cross_origin: headers.contains_key(ORIGIN) }
    }
}

/// A valid date not before 2024-01-01 (`apiversions.go`); anything else means the older form.
fn is_dated(version: &[u8]) -> bool {
    let digits = |from: usize, to: usize| {
        let text = std::str::from_utf8(version.get(from..to)?).ok()?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?
    };
    let dashes = version.len() == 10 && version.get(4) == Some(&b'-') && version.get(7) == Some(&b'-');
    match (dashes, digits(0, 4), digits(5, 7), digits(8, 10)) {
        (true, Some(year), Some(1..=12), Some(1..=31)) => year >= 2024,
        _ => false,
    }
}

/// Makes the answer.
pub fn answer(refusal: Refusal, form: Form) -> Response<Body> {
    answer_with(words(refusal).status, refusal, form)
}

/// Makes the answer with another status than GoTrue's: for whoever asks about a request and does not make it.
pub fn answer_with(status: StatusCode, refusal: Refusal, form: Form) -> Response<Body> {
    let Words { code, message, .. } = words(refusal);
    let text = if form.dated {
        format!(r#"{{"code":"{code}","message":"{message}"}}"#)
    } else {
        format!(r#"{{"code":{},"error_code":"{code}","msg":"{message}"}}"#, status.as_u16())
    };
    let mut response = begun(status, form);
    *response.body_mut() = Body::full(Bytes::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ERROR_CODE, HeaderValue::from_static(code));
    if form.dated {
        headers.insert(API_VERSION, HeaderValue::from_static(VERSION_2024));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// In the place of a redirect that hands out tokens in its fragment: to the same place, with the error instead, in the
/// form of GoTrue's own (`internal/api/verify.go:prepErrorRedirectURL`). Whether `sb` marks it, as in later releases,
/// follows from the tokens.
pub fn redirect(refusal: Refusal, status: StatusCode, location: &str, form: Form) -> Response<Body> {
    let (place, fragment) = location.rsplit_once('#').unwrap_or((location, ""));
    let Words { status: of_error, code, message } = words(refusal);
    let error = if of_error == StatusCode::FORBIDDEN { "access_denied" } else { "invalid_request" };
    let marked = if fragment.split('&').any(|part| part == "sb=") { "&sb=" } else { "" };
    let message = message.replace(' ', "+");
    let to = format!("{place}#error={error}&error_code={code}&error_description={message}{marked}");
    let mut response = begun(status, form);
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// An empty answer with the headers that every answer of our own has.
pub fn begun(status: StatusCode, form: Form) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // as GoTrue's answers have it (RFC 9110 §6.6.1); rare enough to be made anew each time
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(DATE, date);
    }
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if form.cross_origin {
        allow_origin(headers);
    }
    response
}

/// What GoTrue sends to every page (`internal/api/api.go`: `cors.New`), besides the `Vary` that everybody gets.
fn allow_origin(headers: &mut HeaderMap) {
    for (name, value) in [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "X-Total-Count, Link, X-Supabase-Api-Version"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// When each answer is made, for the README.
fn when(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BadFraming => {
            "Where the request ends is ambiguous, or it names no host or two, is a `CONNECT`, or its body broke off"
        }
        Refusal::BodyTooLarge => {
            "A body that must be read here is above `limits.request_body_bytes`; only with a store"
        }
        Refusal::HeadTooLarge => "The head is above `limits.header_bytes`, or has more than 100 header lines",
        Refusal::WrongPrefix => "The path is not below `path_prefix`",
        Refusal::UpstreamUnreachable => {
            "No connection to GoTrue within `upstream.connect_timeout`, or it broke before the head of the answer"
        }
        Refusal::UpstreamTimeout => {
            "No head of an answer within `upstream.timeout`, or no free connection in that time"
        }
        Refusal::SessionRevoked => {
            "With `enforce`, at the session API or at a check: the session of the Bearer token was revoked; or GoTrue raised a revoked session (§6.3)"
        }
        Refusal::SessionExpired => "As before, of a session whose time is over (§6.5)",
        Refusal::UserSuspended => {
            "With `enforce`, at the session API or at a check: the user of the Bearer token is banned"
        }
        Refusal::RefreshRevoked => "GoTrue refreshed a session that was revoked here (§6.3)",
        Refusal::RefreshExpired => "A refresh of a session whose time is over (§6.5)",
        Refusal::TooManySessions => {
            "A sign-in of a user with `session.max_per_user` sessions, with `session.max_policy: deny` (§6.5); a redirect with tokens becomes one with this error"
        }
        Refusal::StoreUnavailable => {
            "The session API or a check needs the store, and the store does not answer"
        }
        Refusal::NoToken => "Session API or check: no Bearer token",
        Refusal::BadToken => "Session API or check: the token does not verify, or is not valid yet",
        Refusal::TokenExpired => "Session API or check: the token has expired",
        Refusal::TokenWithoutUser => {
            "Session API or check: the token names no user, as that of a service key"
        }
        Refusal::TokenOddUser | Refusal::TokenOddSession => {
            "Session API or check: the token's claim is no UUID"
        }
        Refusal::TokenWithoutSession => "Check: the token belongs to no session, and `check.keys` is `deny`",
        Refusal::TokenWithoutExpiry => "Check: the token never expires",
        Refusal::NotAdmin => "Session API: the token's role is none of `jwt.admin_roles`",
        Refusal::NoKeys => "Session API or check: no key is configured, and GoTrue has not published any",
        Refusal::OddUserPath | Refusal::OddSessionPath => "Session API: the id in the path is no UUID",
        Refusal::UnknownScope => "Session API: `DELETE /sessions` without a known scope",
        Refusal::NoUserId => "Session API: `/admin/sessions/{id}` without `user_id`",
        Refusal::BadPage => "Session API: a page that cannot be",
        Refusal::NoSuchSession => "Session API: no such live session of this user",
    }
}

/// The README's table.
pub fn table() -> String {
    let mut table =
        "| status | `error_code` | when | message | `reason` |\n|---|---|---|---|---|\n".to_owned();
    for refusal in Refusal::ALL {
        let Words { status, code, message } = words(refusal);
        let (status, when, reason) = (status.as_str(), when(refusal), refusal.as_str());
        let row = ["| ", status, " | `", code, "` | ", when, " | ", message, " | `", reason, "` |\n"];
        table.extend(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_version_is_a_date_and_not_before_2024() {
        for (version, dated) in [
            ("2024-01-01", true),
            ("2025-12-31", true),
            ("2023-12-31", false),
            ("2024-13-01", false),
            ("2024-1-1", false),
            ("", false),
            ("latest", false),
            ("+024-01-01", false),
        ] {
            assert_eq!(is_dated(version.as_bytes()), dated, "{version}");
        }
    }

    #[tokio::test]
    async fn errors_have_gotrues_form() {
        let legacy = answer(Refusal::SessionRevoked, Form::default());
        assert_eq!(legacy.status(), 403);
        assert_eq!(legacy.headers().get(ERROR_CODE).unwrap(), "session_not_found");
        assert_eq!(legacy.headers().get(VARY).unwrap(), "Origin");
        assert_eq!(
            text(legacy).await,
            r#"{"code":403,"error_code":"session_not_found","msg":"Session from session_id claim in JWT does not exist"}"#
        );
        let dated = answer(Refusal::RefreshRevoked, Form { dated: true, cross_origin: true });
        assert_eq!(dated.status(), 400);
        assert_eq!(dated.headers().get(API_VERSION).unwrap(), VERSION_2024);
        assert_eq!(dated.headers().get("access-control-allow-origin").unwrap(), "*");
        assert_eq!(
            text(dated).await,
            r#"{"code":"refresh_token_not_found","message":"Invalid Refresh Token: Refresh Token Not Found"}"#
        );
    }

    #[test]
    fn a_redirect_keeps_its_place_and_loses_its_tokens() {
        for (location, expected) in [
            (
                "https://app.example/cb?x=1#access_token=canary&refresh_token=canary&sb=&token_type=bearer",
                "https://app.example/cb?x=1#error=access_denied&error_code=too_many_sessions&error_description=User+has+reached+the+maximum+number+of+sessions&sb=",
            ),
            (
                "https://app.example/#/route#access_token=canary&refresh_token=canary",
                "https://app.example/#/route#error=access_denied&error_code=too_many_sessions&error_description=User+has+reached+the+maximum+number+of+sessions",
            ),
        ] {
            let answer = redirect(Refusal::TooManySessions, StatusCode::SEE_OTHER, location, Form::default());
            assert_eq!(answer.status(), 303);
            assert_eq!(answer.headers()[LOCATION], expected);
        }
    }

    #[test]
    fn no_refusal_is_a_500() {
        for refusal in Refusal::ALL {
            assert_ne!(words(refusal).status, StatusCode::INTERNAL_SERVER_ERROR);
        }
    }
}
