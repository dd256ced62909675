//! Decisions as tables: what is asked, what is answered, what changes.

mod ending;
mod inspect;
mod record;
mod refusal;
mod witness;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue};

use super::*;
use crate::session::{Aal, Origin, Record, SessionId, UserId, Which};
use crate::token::{Claims, RefreshToken};

const USER: &str = "0191d1a0-0000-7000-8000-00000000000a";
const OTHER: &str = "0191d1a0-0000-7000-8000-00000000000b";
const SESSION: &str = "0191d1a0-0000-7000-8000-000000000001";
const OTHER_SESSION: &str = "0191d1a0-0000-7000-8000-000000000002";
const FACTOR: &str = "0191d1a0-0000-7000-8000-0000000000f1";
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
    template.replace("\"U\"", &format!("\"{USER}\"")).replace("\"S\"", &format!("\"{SESSION}\""))
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(filled(claims)))
}

impl Who {
    fn verdict(self) -> Option<Verdict> {
        let claims = |template| Claims::unverified(&jwt(template)).unwrap();
        match self {
            Self::Nobody => None,
            Self::Good(template) => Some(Verdict::Good(claims(template).into())),
            Self::Expired(template) => Some(Verdict::Expired(claims(template).into())),
            Self::NoKeys(template) => Some(Verdict::NoKeys(claims(template).into())),
            Self::UnknownKey(template) => Some(Verdict::UnknownKey(claims(template).into())),
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
    Exchange { who, request, body: None, status, headers: Vec::new(), answer: String::new() }
}

impl Exchange {
    fn body(self, body: impl Into<String>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn code(self, code: &str) -> Self {
        self.header("x-sb-error-code", code)
    }

    fn answer(self, answer: impl Into<String>) -> Self {
        Self { answer: answer.into(), ..self }
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
        let answered = Answered { status, headers: &headers, body, now_ms: NOW * 1000 };
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
        FACTOR => "factor",
        _ => "?",
    }
}

fn words(change: &Change) -> String {
    let user = change.user().to_string();
    let user = short(&user);
    match change {
        Change::Record { origin, record, allowed_ms } => {
            let origin = if *origin == Origin::SignIn { "sign-in" } else { "refresh" };
            assert!(allowed_ms.is_none_or(|ms| ms == SENT_MS));
            format!("{origin} {} of {user}", short(&record.session.to_string()))
        }
        Change::End { which, reason, ended_in_gotrue, sent_ms, .. } => {
            assert_eq!(*sent_ms, which.sent(SENT_MS));
            let which = match which {
                Which::One(id) | Which::Live(id) => short(&id.to_string()).to_owned(),
                Which::Others(id) => format!("all but {}", short(&id.to_string())),
                Which::All => "all".to_owned(),
                Which::Aal1Except(id) => format!("aal1 but {}", short(&id.to_string())),
                Which::Client(id) => format!("client's {}", short(id)),
            };
            let here = if *ended_in_gotrue { "" } else { " here" };
            format!("end {which} of {user} ({}){here}", reason.as_str())
        }
        Change::Allowed { .. } => panic!("only the queue makes such a change"),
        Change::Suspend { until, decided_ms, .. } => {
            assert_eq!(*decided_ms, NOW * 1000);
            format!("suspend {user} until {until:?}")
        }
        Change::Banned { until, seen_ms, .. } => {
            assert_eq!(*seen_ms, SENT_MS);
            format!("suspend {user} at least until {until}")
        }
        Change::LowerAal { factor, .. } => format!("lower {user} from {}", short(&factor.to_string())),
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
        assert_eq!(exchange.outcome(), expected, "{} {}", exchange.request, exchange.status);
    }
}

const ADMIN_USER: &str = "PUT /admin/users/0191d1a0-0000-7000-8000-00000000000a";

const FRESH: &str = r#"{"sub":"U","session_id":"S","exp":13600,"iat":10000,"aal":"aal1",
    "amr":[{"method":"password","timestamp":9998}],"role":"authenticated"}"#;
const V1: &str = "abcdefghijkl";
const PASSWORD: &str = "POST /token?grant_type=password";
const REFRESH: &str = "POST /token?grant_type=refresh_token";

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
