//! Reads the recorded exchanges in `tests/corpus` (format `gotrue-corpus/1`, see its README).

use std::fs;
use std::path::{Path, PathBuf};

use gotrue_sidecar::rfc3339;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

/// One file: a scenario against one release.
pub(crate) struct Recording {
    /// `v2.196/refresh-v2`
    pub(crate) name: String,
    pub(crate) metadata: Metadata,
    pub(crate) steps: Vec<Step>,
}

#[derive(Deserialize)]
pub(crate) struct Metadata {
    format: String,
    pub(crate) scenario: String,
    pub(crate) token_mode: String,
    pub(crate) jwt: Jwt,
    steps: usize,
}

#[derive(Deserialize)]
pub(crate) struct Jwt {
    pub(crate) secret: String,
    pub(crate) jwks: Option<serde_json::Value>,
}

#[derive(Deserialize)]
pub(crate) struct Step {
    #[serde(rename = "step")]
    pub(crate) name: String,
    at: String,
    pub(crate) request: Request,
    pub(crate) response: Response,
    pub(crate) after: Rows,
    pub(crate) between: Option<String>,
    pub(crate) concurrent: Option<String>,
    pub(crate) expect: Expect,
}

#[derive(Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    body: Option<String>,
    body_gen: Option<Generated>,
}

#[derive(Deserialize)]
struct Generated {
    prefix: String,
    fill: String,
    count: usize,
    suffix: String,
}

#[derive(Deserialize)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    body: Option<String>,
    elided: Option<Elided>,
}

/// A field whose text was left out of the recording.
#[derive(Deserialize)]
struct Elided {
    length: usize,
}

#[derive(Deserialize)]
pub(crate) struct Rows {
    pub(crate) sessions: Vec<SessionRow>,
    pub(crate) users: Vec<UserRow>,
}

#[derive(Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) id: String,
    pub(crate) user_id: String,
    created_at: String,
    pub(crate) aal: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) oauth_client_id: Option<String>,
    pub(crate) refresh_token_counter: Option<u64>,
    pub(crate) amr: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct UserRow {
    pub(crate) id: String,
    banned_until: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Expect {
    pub(crate) action: String,
    pub(crate) added: Vec<String>,
    pub(crate) removed: Vec<String>,
}

/// Every recording, by name.
pub(crate) fn recordings() -> Vec<Recording> {
    let mut files = Vec::new();
    for release in entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")) {
        if release.is_dir() {
            files.extend(entries(&release));
        }
    }
    files.sort();
    assert!(!files.is_empty(), "tests/corpus holds no recordings");
    files.iter().map(|file| Recording::read(file)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{} cannot be listed: {error}", folder.display()));
    listing.map(|entry| entry.unwrap().path()).collect()
}

impl Recording {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let mut lines = text.lines().enumerate();
        let broken = |line: usize, error: serde_json::Error| -> ! {
            panic!("{}:{}: {error}", file.display(), line + 1)
        };
        let (_, first) = lines.next().expect("a line of metadata");
        let metadata: Metadata = serde_json::from_str(first).unwrap_or_else(|error| broken(0, error));
        let steps: Vec<Step> = lines
            .map(|(line, text)| serde_json::from_str(text).unwrap_or_else(|error| broken(line, error)))
            .collect();
        assert_eq!(metadata.format, "gotrue-corpus/1", "{}", file.display());
        assert_eq!(metadata.steps, steps.len(), "{}", file.display());
        let release = file.parent().and_then(Path::file_name).unwrap().to_string_lossy();
        let scenario = file.file_stem().unwrap().to_string_lossy();
        Self { name: format!("{release}/{scenario}"), metadata, steps }
    }

    /// The folder it lies in.
    pub(crate) fn release(&self) -> &str {
        self.name.split('/').next().unwrap()
    }
}

impl Step {
    /// When the request was sent, in milliseconds since the epoch.
    pub(crate) fn at_ms(&self) -> u64 {
        rfc3339::millis(&self.at).unwrap_or_else(|| panic!("{} is no time", self.at))
    }
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.path.split('?').next().unwrap()
    }

    pub(crate) fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        header_map(&self.headers)
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        match (&self.body, &self.body_gen) {
            (Some(body), None) => body.as_bytes().to_vec(),
            (None, Some(made)) => {
                let filling = made.fill.repeat(made.count);
                [&made.prefix, &filling, &made.suffix].map(String::as_bytes).concat()
            }
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => panic!("a request has both a body and a rule to make it"),
        }
    }
}

impl Response {
    pub(crate) fn headers(&self) -> HeaderMap {
        header_map(&self.headers)
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default().as_bytes()
    }

    /// As long as it was: filled where it was left out.
    pub(crate) fn whole_body(&self) -> Vec<u8> {
        let body = self.body.as_deref().unwrap_or_default();
        match &self.elided {
            Some(elided) => body.replace("data:elided", &"x".repeat(elided.length)).into_bytes(),
            None => body.as_bytes().to_vec(),
        }
    }
}

impl SessionRow {
    /// In milliseconds since the epoch.
    pub(crate) fn created_ms(&self) -> u64 {
        rfc3339::millis(&self.created_at).unwrap()
    }
}

impl UserRow {
    /// In milliseconds since the epoch.
    pub(crate) fn banned_until_ms(&self) -> Option<u64> {
        self.banned_until.as_deref().map(|time| rfc3339::millis(time).unwrap())
    }
}

fn header_map(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}
