//! Decisions as a table: what is asked, what is answered, what changes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue};

use super::*;
use crate::session::{Aal, Origin, Record, SessionId, UserId, Which};
use crate::token::{Claims, RefreshToken};

const USER: &str = "0191d1a0-0000-7000-8000-00000000000a";
const OTHER: &str = "0191d1a0-0000-7000-8000-00000000000b";
const SESSION: &str = "0191d1a0-0000-7000-8000-000000000001";
const OTHER_SESSION: &str = "0191d1a0-0000-7000-8000-000000000002";
const CLIENT: &str = "0191d1a0-0000-7000-8000-0000000000c1";
const NOW: Seconds = 10_000;
const SENT_MS: u64 = 9_999_500;

/// Who the Bearer token says is asking, and what is known of it.
#[derive(Clone, Copy)]
enum Who {
    Nobody,
    Good(&'static str),
    Expired(&'static str),
    NoKeys(&'static str),
    UnknownKey(&'static str),
    Forged,
}

const ME: &str = r#"{"sub":"U","session_id":"S","exp":13600,"aal":"aal2"}"#;
const ME_AAL1: &str = r#"{"sub":"U","session_id":"S","exp":13600,"aal":"aal1"}"#;
const NO_SESSION: &str = r#"{"sub":"U","exp":13600}"#;
const NIL_SESSION: &str = r#"{"sub":"U","session_id":"00000000-0000-0000-0000-000000000000","exp":13600}"#;
const ODD_SESSION: &str = r#"{"sub":"U","session_id":"custom-session-string","exp":13600}"#;
const NO_SUB: &str = r#"{"role":"service_role"}"#;
const ODD_SUB: &str = r#"{"sub":"me","session_id":"S","exp":13600}"#;
const LATELY: &str = r#"{"sub":"U","session_id":"S","exp":9000}"#;
const LONG_AGO: &str = r#"{"sub":"U","session_id":"S","exp":6300}"#;

fn filled(template: &str) -> String {
    template
        .replace("\"U\"", &format!("\"{USER}\""))
        .replace("\"S\"", &format!("\"{SESSION}\""))
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(filled(claims)))
}

impl Who {
    fn verdict(self) -> Option<Verdict> {
        let claims = |template| Claims::unverified(&jwt(template)).unwrap();
        match self {
            Self::Nobody => None,
            Self::Good(template) => Some(Verdict::Good(claims(template))),
            Self::Expired(template) => Some(Verdict::Expired(claims(template))),
            Self::NoKeys(template) => Some(Verdict::NoKeys(claims(template))),
            Self::UnknownKey(template) => Some(Verdict::UnknownKey(claims(template))),
            Self::Forged => Some(Verdict::Bad),
        }
    }
}

/// An exchange; everything not said is empty.
struct Exchange {
    who: Who,
    request: &'static str,
    body: Option<String>,
    status: u16,
    headers: Vec<(&'static str, String)>,
    answer: String,
}

fn exchange(who: Who, request: &'static str, status: u16) -> Exchange {
    Exchange {
        who,
        request,
        body: None,
        status,
        headers: Vec::new(),
        answer: String::new(),
    }
}

impl Exchange {
    fn body(self, body: impl Into<String>) -> Self {
        Self {
            body: Some(body.into()),
            ..self
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn code(self, code: &str) -> Self {
        self.header("x-sb-error-code", code)
    }

    fn answer(self, answer: impl Into<String>) -> Self {
        Self {
            answer: answer.into(),
            ..self
        }
    }

    /// Tokens as GoTrue's JSON answers carry them.
    fn tokens(self, claims: &str, refresh: &str) -> Self {
        let access = jwt(claims);
        let answer =
            format!(r#"{{"access_token":"{access}","refresh_token":"{refresh}","user":{{"id":"{USER}"}}}}"#);
        self.answer(answer)
    }

    /// What the decisions come to, in words.
    fn outcome(&self) -> String {
        let (mut before, mut after) = (None, String::new());
        self.decide(|asked, answered| {
            before = mirror().before(asked).as_ref().map(words);
            after = decision_words(&mirror().after(asked, answered));
        });
        before.map_or(after.clone(), |before| format!("{before} | {after}"))
    }

    /// Runs what the proxy runs, bodies only where the decisions ask for them.
    fn decide(&self, run: impl FnOnce(&Asked<'_>, &Answered<'_>)) {
        let (method, target) = self.request.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request_headers = HeaderMap::new();
        request_headers.insert("user-agent", HeaderValue::from_static("browser"));
        let verdict = self.who.verdict();
        if verdict.is_some() {
            request_headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        if !self.answer.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut asked = Asked {
            route: Route::of(&method, path),
            method: &method,
            path,
            query,
            headers: &request_headers,
            body: None,
            bearer: verdict.as_ref(),
            client_ip: Some("203.0.113.7"),
            sent_ms: SENT_MS,
        };
        if asked.reads_body() {
            asked.body = self.body.as_deref().map(str::as_bytes);
        }
        let status = StatusCode::from_u16(self.status).unwrap();
        let body = match asked.inspection(status, &headers) {
            Inspection::Pass => Body::Unread,
            Inspection::Tee | Inspection::Hold => Body::Whole(self.answer.as_bytes()),
        };
        let answered = Answered {
            status,
            headers: &headers,
            body,
            now_ms: NOW * 1000,
        };
        run(&asked, &answered);
    }
}

fn mirror() -> Mirror {
    Mirror::new(Some(RefKey::new(b"key")), Duration::from_secs(3600))
}

fn short(id: &str) -> &str {
    match id {
        USER => "me",
        OTHER => "other",
        SESSION => "this",
        OTHER_SESSION => "that",
        CLIENT => "client",
        _ => "?",
    }
}

fn words(change: &Change) -> String {
    let user = change.user().to_string();
    let user = short(&user);
    match change {
        Change::Record { origin, record } => {
            let origin = if *origin == Origin::SignIn {
                "sign-in"
            } else {
                "refresh"
            };
            format!("{origin} {} of {user}", short(&record.session.to_string()))
        }
        Change::End {
            which,
            reason,
            ended_in_gotrue,
            sent_ms,
            ..
        } => {
            assert_eq!(*sent_ms, SENT_MS);
            let which = match which {
                Which::One(id) => short(&id.to_string()).to_owned(),
                Which::Others(id) => format!("all but {}", short(&id.to_string())),
                Which::All => "all".to_owned(),
                Which::Aal1Except(id) => format!("aal1 but {}", short(&id.to_string())),
                Which::Client(id) => format!("client's {}", short(id)),
            };
            let here = if *ended_in_gotrue { "" } else { " here" };
            format!("end {which} of {user} ({}){here}", reason.as_str())
        }
        Change::Suspend { until, .. } => format!("suspend {user} until {until:?}"),
        Change::Banned { until, .. } => format!("suspend {user} at least until {until}"),
        Change::LowerAal { .. } => format!("lower {user}"),
    }
}

fn decision_words(decision: &Decision<'_>) -> String {
    let mut parts: Vec<String> = decision.changes.iter().map(words).collect();
    if let Some(by_ref) = &decision.by_ref {
        let user = UserId::parse(USER).unwrap();
        let change = by_ref.change(user, SessionId::parse(SESSION).unwrap());
        parts.push(format!("if known: {}", words(&change)));
    }
    parts.extend(decision.unrecorded.map(|cause| cause.as_str().to_owned()));
    parts.join(", ")
}

fn check(table: impl IntoIterator<Item = (Exchange, &'static str)>) {
    for (exchange, expected) in table {
        assert_eq!(
            exchange.outcome(),
            expected,
            "{} {}",
            exchange.request,
            exchange.status
        );
    }
}

use Who::{Expired, Forged, Good, NoKeys, Nobody, UnknownKey};

#[test]
fn a_logout_ends_its_own_session_first_and_the_others_once_gotrue_agrees() {
    let own = "end this of me (logout) here | end all of me (logout)";
    check([
        (exchange(Good(ME), "POST /logout", 204), own),
        (exchange(Good(ME), "POST /logout?scope=global", 204), own),
        (exchange(Good(ME), "POST /logout?scope=%zz", 204), own),
        (
            exchange(Good(ME), "POST /logout?scope=local", 204),
            "end this of me (logout) here | end this of me (logout)",
        ),
        (
            exchange(Good(ME), "POST /logout?scope=others", 204),
            "end all but this of me (logout)",
        ),
        (exchange(Good(ME), "POST /logout?scope=all", 400), ""),
        (exchange(Good(ME), "POST /logout?scope=all", 204), ""),
        (
            exchange(Good(ME), "POST /logout", 500),
            "end this of me (logout) here | ",
        ),
        (
            exchange(Good(ME), "POST /logout", 502),
            "end this of me (logout) here | ",
        ),
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
        (
            exchange(Good(ODD_SESSION), "POST /logout", 403).code("bad_jwt"),
            "",
        ),
        (exchange(Good(NO_SUB), "POST /logout", 403).code("bad_jwt"), ""),
        (exchange(Good(ODD_SUB), "POST /logout", 400).code("bad_jwt"), ""),
    ]);
}

#[test]
fn an_expired_token_ends_its_own_session_for_a_while() {
    check([
        (
            exchange(Expired(LATELY), "POST /logout", 403).code("bad_jwt"),
            "end this of me (logout) here | ",
        ),
        (
            exchange(Expired(LATELY), "POST /logout?scope=local", 403).code("bad_jwt"),
            "end this of me (logout) here | ",
        ),
        (
            exchange(Expired(LATELY), "POST /logout?scope=others", 403).code("bad_jwt"),
            "",
        ),
        (
            exchange(Expired(LATELY), "POST /logout?scope=all", 403).code("bad_jwt"),
            "",
        ),
        (
            exchange(Expired(LONG_AGO), "POST /logout", 403).code("bad_jwt"),
            "",
        ),
    ]);
    let off = Mirror::new(None, Duration::ZERO);
    exchange(Expired(LATELY), "POST /logout", 403).decide(|asked, _| assert_eq!(off.before(asked), None));
}

#[test]
fn a_token_that_does_not_verify_changes_nothing_unless_gotrue_agrees() {
    check([
        (exchange(Forged, "POST /logout", 403).code("bad_jwt"), ""),
        (exchange(Forged, "POST /logout", 204), "unverified"),
        (exchange(Forged, "DELETE /factors/f", 200), "unverified"),
        (
            exchange(Forged, "PUT /user", 200).body(r#"{"password":"x"}"#),
            "unverified",
        ),
        (exchange(Forged, "PUT /user", 200).body(r#"{"data":{}}"#), ""),
        (
            exchange(Forged, "GET /user", 403).code("session_not_found"),
            "unverified",
        ),
        (
            exchange(NoKeys(ME), "POST /logout", 204),
            "end all of me (logout)",
        ),
        (
            exchange(UnknownKey(ME), "POST /logout?scope=local", 204),
            "end this of me (logout)",
        ),
        (exchange(NoKeys(ME), "POST /logout", 500), ""),
        (
            exchange(NoKeys(ME), "GET /user", 403).code("session_not_found"),
            "unverified",
        ),
        (
            exchange(UnknownKey(ME), "GET /user", 403).code("user_not_found"),
            "unverified",
        ),
        (
            exchange(NoKeys(ME), "POST /factors/f/verify", 403).code("mfa_verification_rejected"),
            "unverified",
        ),
        (exchange(Nobody, "GET /user", 403).code("session_not_found"), ""),
    ]);
}

#[test]
fn gotrues_refusals_bring_the_mirror_up_to_date() {
    let gone = "end this of me (unknown_to_gotrue)";
    let legacy = r#"{"code":403,"error_code":"session_not_found","msg":"x"}"#;
    let dated = r#"{"code":"session_not_found","message":"x"}"#;
    check([
        (
            exchange(Good(ME), "GET /user", 403).code("session_not_found"),
            gone,
        ),
        (
            exchange(Expired(LATELY), "GET /user", 403).code("session_not_found"),
            gone,
        ),
        (exchange(Good(ME), "GET /user", 403).answer(legacy), gone),
        (exchange(Good(ME), "POST /factors", 403).answer(dated), gone),
        (
            exchange(Good(ME), "POST /logout", 403).code("session_not_found"),
            "end this of me (logout) here | end this of me (unknown_to_gotrue)",
        ),
        (
            exchange(Good(ME), "GET /user", 403).code("user_not_found"),
            "end all of me (user_deleted)",
        ),
        (
            exchange(Good(ME), "GET /user", 403).code("user_banned"),
            "suspend me at least until 13600",
        ),
        (exchange(Good(ME), "POST /verify", 403).code("user_banned"), ""),
        (
            exchange(Good(ME), "POST /factors/f/verify", 403).code("user_banned"),
            "suspend me at least until 13600",
        ),
        (
            exchange(Good(NO_SESSION), "GET /user", 403).code("session_not_found"),
            "",
        ),
        (exchange(Good(ME), "GET /user", 401).code("session_not_found"), ""),
        (exchange(Good(ME), "GET /user", 404).code("user_not_found"), ""),
        (exchange(Good(ME), "GET /user", 403).answer("not json"), ""),
        (
            exchange(Good(ME), "GET /user", 403)
                .answer(r#"{"code":403,"error_code":"unknown","msg":"session_not_found"}"#),
            "",
        ),
        (
            exchange(Good(ME), "GET /user", 403)
                .header("content-type", "text/plain")
                .answer(legacy),
            "",
        ),
    ]);
}

#[test]
fn a_new_password_ends_the_other_sessions() {
    let set = r#"{"password":"x"}"#;
    let others = "end all but this of me (password_changed)";
    check([
        (exchange(Good(ME), "PUT /user", 200).body(set), others),
        (exchange(Good(ME), "PUT /user/", 200).body(set), others),
        (exchange(NoKeys(ME), "PUT /user", 200).body(set), others),
        (
            exchange(Good(ME), "PUT /user", 200).body(r#"{"Password":"x"}"#),
            others,
        ),
        (
            exchange(Good(ME), "PUT /user", 200).body(r#"{"password":null}"#),
            "",
        ),
        (exchange(Good(ME), "PUT /user", 200).body(r#"{"data":{}}"#), ""),
        (
            exchange(Good(ME), "PUT /user", 422)
                .body(set)
                .code("same_password"),
            "",
        ),
        (exchange(Good(ME), "PUT /user", 200), ""),
        (
            exchange(Good(NO_SESSION), "PUT /user", 200).body(set),
            "end all of me (password_changed)",
        ),
        (exchange(Good(ODD_SESSION), "PUT /user", 200).body(set), ""),
    ]);
}

const ADMIN_USER: &str = "PUT /admin/users/0191d1a0-0000-7000-8000-00000000000a";

#[test]
fn what_an_admin_does_to_a_user_is_followed() {
    let banned = r#"{"id":"x","banned_until":"1970-01-01T05:00:00.5Z"}"#;
    check([
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200).body(r#"{"password":"x"}"#),
            "end all of me (password_changed)",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200).body(r#"{"password":null}"#),
            "",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200)
                .body(r#"{"role":"x"}"#)
                .answer(banned),
            "",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 403)
                .body(r#"{"password":"x"}"#)
                .code("not_admin"),
            "",
        ),
        (
            exchange(Good(NO_SUB), ADMIN_USER, 200)
                .body(r#"{"ban_duration":"1h"}"#)
                .answer(banned),
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
            exchange(
                Good(NO_SUB),
                "DELETE /admin/users/0191d1a0-0000-7000-8000-00000000000a",
                200,
            )
            .answer("{}"),
            "end all of me (user_deleted)",
        ),
        (exchange(Good(NO_SUB), "DELETE /admin/users/me", 200), ""),
        (
            exchange(
                Good(NO_SUB),
                "DELETE /admin/oauth/clients/0191d1a0-0000-7000-8000-0000000000c1",
                204,
            ),
            "",
        ),
    ]);
}

#[test]
fn a_removed_factor_lowers_sessions_only_where_one_may_stand_on_it() {
    let by_admin = "DELETE /admin/users/0191d1a0-0000-7000-8000-00000000000a/factors/f";
    check([
        (exchange(Good(ME), "DELETE /factors/f", 200), "lower me"),
        (exchange(Good(ME_AAL1), "DELETE /factors/f", 200), ""),
        (
            exchange(Good(ME_AAL1), "DELETE /factors/f", 422).code("insufficient_aal"),
            "",
        ),
        (
            exchange(Good(NO_SUB), by_admin, 200).answer(r#"{"status":"verified"}"#),
            "lower me",
        ),
        (
            exchange(Good(NO_SUB), by_admin, 200).answer(r#"{"status":"unverified"}"#),
            "",
        ),
        (
            exchange(Good(NO_SUB), by_admin, 404).code("mfa_factor_not_found"),
            "",
        ),
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
        (
            exchange(Good(ME), "DELETE /user/oauth/grants?client_id=x", 204),
            "",
        ),
        (
            exchange(Good(ME), "DELETE /user/oauth/grants", 400).code("validation_failed"),
            "",
        ),
    ]);
}

const FRESH: &str = r#"{"sub":"U","session_id":"S","exp":13600,"iat":10000,"aal":"aal1",
    "amr":[{"method":"password","timestamp":9998}],"role":"authenticated"}"#;
const V1: &str = "abcdefghijkl";
const PASSWORD: &str = "POST /token?grant_type=password";
const REFRESH: &str = "POST /token?grant_type=refresh_token";

#[test]
fn tokens_are_recorded_whatever_the_endpoint() {
    let begun = "sign-in this of me";
    let location = format!("http://x/#access_token={}&refresh_token={V1}", jwt(FRESH));
    let redirect = |request, status| {
        exchange(Nobody, request, status).header(LOCATION.as_str().to_owned().leak(), &location)
    };
    check([
        (exchange(Nobody, PASSWORD, 200).tokens(FRESH, V1), begun),
        (
            exchange(Nobody, "POST /token?grant_type=pkce", 200).tokens(FRESH, V1),
            begun,
        ),
        (exchange(Nobody, "POST /signup/", 200).tokens(FRESH, V1), begun),
        (exchange(Nobody, "POST /verify", 200).tokens(FRESH, V1), begun),
        (
            exchange(Nobody, "POST /passkeys/authentication/verify", 200).tokens(FRESH, V1),
            begun,
        ),
        (redirect("GET /verify?token=x", 303), begun),
        (redirect("GET /callback?code=x", 302), begun),
        (redirect("POST /sso/saml/acs", 302), begun),
        (redirect("GET /authorize", 302), "refresh this of me"),
        (
            exchange(Nobody, "POST /future/sign-in", 200).tokens(FRESH, V1),
            "refresh this of me",
        ),
        (exchange(Nobody, "GET /future", 200).tokens(FRESH, V1), ""),
        (exchange(Nobody, "POST /factors", 200).tokens(FRESH, V1), ""),
        (exchange(Nobody, PASSWORD, 400).tokens(FRESH, V1), ""),
        (exchange(Nobody, "POST /signup", 200).answer(r#"{"id":"x"}"#), ""),
        (
            exchange(Nobody, "POST /verify", 200).answer(r#"{"code":"200","msg":"x"}"#),
            "",
        ),
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
        (
            sign_in(FRESH).header(session, SESSION).header(user, USER),
            "sign-in this of me",
        ),
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
            exchange(Nobody, REFRESH, 200)
                .body(refreshing(&v2(OTHER_SESSION, 3)))
                .tokens(FRESH, V1),
            "contradiction",
        ),
        (
            exchange(Nobody, PASSWORD, 200).tokens(FRESH, &v2(OTHER_SESSION, 0)),
            "contradiction",
        ),
        (
            exchange(Nobody, PASSWORD, 200).tokens(FRESH, &v2(SESSION, 0)),
            "sign-in this of me",
        ),
    ]);
}

fn refreshing(token: &str) -> String {
    format!(r#"{{"refresh_token":"{token}"}}"#)
}

fn v2(session: &str, counter: u8) -> String {
    let mut bytes = vec![0];
    bytes.extend(uuid::Uuid::try_parse(session).unwrap().as_bytes());
    bytes.push(counter);
    bytes.extend([9; 16]);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    bytes.extend(&hash.as_ref()[..4]);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn a_sign_in_is_told_from_a_refresh_and_in_doubt_it_is_none() {
    let form = |grant: &str| format!("grant_type={grant}&refresh_token={V1}");
    let oauth = "POST /oauth/token";
    let new = |request| exchange(Nobody, request, 200).header("sb-auth-session-id", SESSION);
    let first = v2(SESSION, 0);
    check([
        (
            exchange(Nobody, REFRESH, 200)
                .body(refreshing(V1))
                .tokens(FRESH, V1),
            "refresh this of me",
        ),
        (
            exchange(
                Nobody,
                "POST /token?grant_type=password&grant_type=refresh_token",
                200,
            )
            .tokens(FRESH, V1),
            "sign-in this of me",
        ),
        (
            exchange(Nobody, oauth, 200)
                .body(form("authorization_code"))
                .tokens(FRESH, V1),
            "sign-in this of me",
        ),
        (
            exchange(Nobody, oauth, 200)
                .body(form("refresh_token"))
                .tokens(FRESH, V1),
            "refresh this of me",
        ),
        (
            exchange(Nobody, oauth, 200).tokens(FRESH, V1),
            "refresh this of me",
        ),
        (new(oauth).tokens(FRESH, &first), "sign-in this of me"),
        (new("POST /future").tokens(FRESH, &first), "sign-in this of me"),
        (
            new("POST /future").tokens(FRESH, &v2(SESSION, 1)),
            "refresh this of me",
        ),
        (new("POST /future").tokens(FRESH, V1), "refresh this of me"),
        (
            new("POST /future")
                .header("sb-auth-refresh-token-reuse", "false")
                .tokens(FRESH, &first),
            "refresh this of me",
        ),
        (
            exchange(Nobody, "POST /future", 200).tokens(FRESH, &first),
            "refresh this of me",
        ),
    ]);
}

#[test]
fn a_second_factor_raises_its_session_and_ends_those_without() {
    let raised = "refresh this of me, end aal1 but this of me (mfa_verified)";
    let verify = |who, status| exchange(who, "POST /factors/f/verify", status);
    let theirs = r#"{"sub":"U","session_id":"0191d1a0-0000-7000-8000-000000000002","exp":13600}"#;
    check([
        (verify(Good(ME_AAL1), 200).tokens(FRESH, V1), raised),
        (
            exchange(Good(ME_AAL1), "POST /factors/recovery-codes/verify", 200).tokens(FRESH, V1),
            raised,
        ),
        (verify(Good(theirs), 200).tokens(FRESH, V1), "contradiction"),
        (verify(Good(ME_AAL1), 422).code("mfa_verification_failed"), ""),
        (
            verify(Good(ME_AAL1), 403).code("mfa_verification_rejected"),
            "end all of me (mfa_rejected)",
        ),
        (
            exchange(Good(ME), "GET /user", 403).code("mfa_verification_rejected"),
            "",
        ),
    ]);
    verify(Good(ME_AAL1), 200)
        .tokens(FRESH, V1)
        .decide(|asked, answered| {
            let decision = mirror().after(asked, answered);
            let record = recorded(&decision);
            assert_eq!(record.aal, Some(Aal::Aal2));
            assert_eq!((&record.ip, &record.user_agent), (&None, &None));
        });
}

#[test]
fn failed_refreshes_tell_what_became_of_the_session() {
    let refresh = |status| exchange(Nobody, REFRESH, status).body(refreshing(V1));
    let gone = "if known: end this of me (unknown_to_gotrue)";
    let reused = |header| {
        refresh(400)
            .code("refresh_token_already_used")
            .header("sb-auth-refresh-token-rotated", header)
    };
    let named = |exchange: Exchange| {
        exchange
            .header("sb-auth-session-id", SESSION)
            .header("sb-auth-user-id", USER)
    };
    let oauth_form = |text: &str| {
        format!(r#"{{"error":"invalid_grant","error_description":"Invalid Refresh Token: {text}"}}"#)
    };
    check([
        (refresh(400).code("refresh_token_not_found"), gone),
        (refresh(400).answer(oauth_form("Refresh Token Not Found")), gone),
        (refresh(400).answer(oauth_form("Already Used")), ""),
        (refresh(400).answer(oauth_form("Session Expired")), ""),
        (
            refresh(400).answer(oauth_form("User Banned")),
            "if known: suspend me at least until 13600",
        ),
        (
            named(refresh(400).code("user_banned")),
            "suspend me at least until 13600",
        ),
        (refresh(400).code("refresh_token_already_used"), ""),
        (named(refresh(400).code("refresh_token_already_used")), ""),
        (named(reused("true")), "end this of me (refresh_reuse)"),
        (named(reused("false")), ""),
        (reused("true"), "if known: end this of me (refresh_reuse)"),
        (
            named(reused("true")).body(refreshing(&v2(OTHER_SESSION, 1))),
            "contradiction",
        ),
        (named(refresh(400).code("session_expired")), ""),
        (refresh(409).code("conflict"), ""),
        (refresh(429).code("over_request_rate_limit"), ""),
        (refresh(500).code("unexpected_failure"), ""),
        (refresh(504).code("request_timeout"), ""),
        (
            exchange(Nobody, PASSWORD, 400).code("refresh_token_not_found"),
            "",
        ),
        (
            exchange(Nobody, REFRESH, 400)
                .body("{")
                .code("refresh_token_not_found"),
            "",
        ),
    ]);
}

fn recorded<'a>(decision: &'a Decision<'_>) -> &'a Record {
    match decision.changes.first() {
        Some(Change::Record { record, .. }) => record,
        other => panic!("{other:?} is no record"),
    }
}

#[test]
fn a_sign_in_begins_now_and_a_refresh_when_its_token_says() {
    exchange(Nobody, PASSWORD, 200)
        .tokens(FRESH, V1)
        .decide(|asked, answered| {
            let decision = mirror().after(asked, answered);
            let record = recorded(&decision);
            assert_eq!((record.created_at, record.began_ms), (NOW, NOW * 1000));
            assert_eq!((record.refreshed_at, record.expires_at), (10_000, 13_600));
            assert_eq!(record.seen_at, Some(NOW));
            assert_eq!(record.ip.as_deref(), Some("203.0.113.7"));
            assert_eq!(record.user_agent.as_deref(), Some("browser"));
            assert_eq!(record.amr.as_deref(), Some("password"));
            let current = RefKey::new(b"key").reference(&RefreshToken::new(V1));
            assert_eq!(
                (record.refresh_ref.as_ref(), &record.previous_ref),
                (Some(&current), &None)
            );
            assert!(decision.issued.is_some());
        });
    let refresh = exchange(Nobody, REFRESH, 200)
        .body(refreshing("before"))
        .tokens(FRESH, V1);
    refresh.decide(|asked, answered| {
        let decision = mirror().after(asked, answered);
        let record = recorded(&decision);
        assert_eq!((record.created_at, record.began_ms), (9_998, 0));
        let before = RefKey::new(b"key").reference(&RefreshToken::new("before"));
        assert_eq!(record.previous_ref, Some(before));
    });
    // The token that was sent comes back: there is no other to remember.
    let unchanged = exchange(Nobody, REFRESH, 200)
        .body(refreshing(V1))
        .tokens(FRESH, V1);
    unchanged.decide(|asked, answered| {
        assert_eq!(recorded(&mirror().after(asked, answered)).previous_ref, None);
        let keyless = Mirror::new(None, Duration::ZERO).after(asked, answered);
        assert_eq!(recorded(&keyless).refresh_ref, None);
    });
}

#[test]
fn an_answer_that_could_not_be_read_is_counted() {
    for cause in [Unrecorded::TooLarge, Unrecorded::Encoded, Unrecorded::CutOff] {
        exchange(Nobody, PASSWORD, 200)
            .tokens(FRESH, V1)
            .decide(|asked, answered| {
                let lost = Answered {
                    body: Body::Lost(cause),
                    ..*answered
                };
                let decision = mirror().after(asked, &lost);
                assert_eq!(decision.unrecorded, Some(cause));
                assert!(decision.changes.is_empty() && decision.issued.is_none());
            });
    }
}

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
