//! A real GoTrue, which the environment names:
//!
//! - `GOTRUE_BIN`: the path of GoTrue's binary (from a release, or out of its image).
//! - `DATABASE_URL`: a **superuser's** URL (`postgres://user:password@host:port/database?…`, over TCP) of a
//!   Postgres cluster that is for tests only. `psql` must be installed.

mod database;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::AsBigEndian as _,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use gotrue_sidecar::session::{SessionId, UserId};
use http::{Request, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::sleep,
};

use self::database::Database;
use super::{RefreshTokens, Row, Settings, Signing};
use crate::support::http::send;

/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(20);

/// One server on a database of its own.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) url: String,
    /// Killed when dropped, before the database goes.
    _process: Child,
    database: Arc<Database>,
    _folder: TempDir,
}

impl Real {
    pub(super) async fn start(secret: &str, settings: Settings) -> Self {
        Self::on(Arc::new(Database::new(&binary().unwrap())), secret, settings).await
    }

    /// Another server on the same database.
    pub(super) async fn beside(&self, secret: &str, settings: Settings) -> Self {
        Self::on(Arc::clone(&self.database), secret, settings).await
    }

    async fn on(database: Arc<Database>, secret: &str, settings: Settings) -> Self {
        let binary = binary().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // The port was free a moment ago; when somebody else was faster, the next one.
        for _ in 0..3 {
            let port = free_port().await;
            let url = format!("http://127.0.0.1:{port}");
            let mut process = command(&binary, &database, folder.path(), &log)
                .arg("serve")
                .env("PORT", port.to_string())
                .env("API_EXTERNAL_URL", &url)
                .env("GOTRUE_JWT_SECRET", secret)
                .envs(of_settings(secret, settings))
                .spawn()
                .unwrap();
            if serves(&url, &mut process).await {
                return Self { url, _process: process, database, _folder: folder };
            }
        }
        panic!("{} did not start: {}", binary.display(), std::fs::read_to_string(log).unwrap());
    }

    /// A superuser's address of it.
    pub(super) fn database_url(&self) -> String {
        self.database.url()
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let rows = self.database.query(
            "SELECT sessions.id, user_id, email, sessions.aal, host(ip), user_agent
             FROM auth.sessions JOIN auth.users ON users.id = user_id",
        );
        rows.lines()
            .map(|row| {
                let mut columns = row.splitn(6, '|').map(str::to_owned);
                let mut column = || columns.next().unwrap();
                Row {
                    session: SessionId::parse(&column()).unwrap(),
                    user: UserId::parse(&column()).unwrap(),
                    email: column(),
                    aal: column(),
                    ip: column(),
                    user_agent: column(),
                }
            })
            .collect()
    }

    pub(super) fn bans(&self) -> Vec<(UserId, bool)> {
        let users = self.database.query("SELECT id, coalesce(banned_until > now(), false) FROM auth.users");
        let of = |row: &str| {
            let (id, banned) = row.split_once('|').unwrap();
            (UserId::parse(id).unwrap(), banned == "t")
        };
        users.lines().map(of).collect()
    }

    pub(super) fn sql(&self, statement: &str) {
        self.database.query(statement);
    }

    pub(super) fn recovery_token(&self, email: &str) -> String {
        let sql = format!("SELECT recovery_token FROM auth.users WHERE email = '{email}'");
        self.database.query(&sql).trim().to_owned()
    }
}

/// Whether the environment names a real GoTrue.
pub(super) fn is_given() -> bool {
    match (binary(), database::url()) {
        (Some(_), Some(_)) => true,
        (Some(_), None) => panic!("GOTRUE_BIN is set, but DATABASE_URL is not"),
        // Without the binary, DATABASE_URL is there for something else.
        (None, _) => false,
    }
}

fn binary() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "names the parts of the test, configures nothing")]
    std::env::var("GOTRUE_BIN").ok().map(PathBuf::from)
}

/// GoTrue with what does not differ between servers. Nothing of this process's environment reaches it, and
/// no `.env` file either.
fn command(binary: &Path, database: &Database, folder: &Path, log: &Path) -> Command {
    let log = File::create(log).unwrap();
    let mut command = Command::new(binary);
    command
        .current_dir(folder)
        .env_clear()
        .env("GOTRUE_API_HOST", "127.0.0.1")
        .env("GOTRUE_SITE_URL", "http://localhost:3000")
        .env("GOTRUE_URI_ALLOW_LIST", "http://localhost:3000/**")
        .env("GOTRUE_DB_DRIVER", "postgres")
        .env("DATABASE_URL", database.url_of_gotrue())
        // GoTrue takes a second connection inside of transactions: with fewer than twice the requests at
        // once it waits for itself.
        .env("GOTRUE_DB_MAX_POOL_SIZE", "32")
        .env("GOTRUE_JWT_AUD", "authenticated")
        .env("GOTRUE_JWT_DEFAULT_GROUP_NAME", "authenticated")
        .env("GOTRUE_MAILER_AUTOCONFIRM", "true")
        .env("GOTRUE_EXTERNAL_ANONYMOUS_USERS_ENABLED", "true")
        .env("GOTRUE_OAUTH_SERVER_ENABLED", "true")
        .env("GOTRUE_OAUTH_SERVER_AUTHORIZATION_PATH", "/oauth/consent")
        .env("GOTRUE_SECURITY_REFRESH_TOKEN_REUSE_INTERVAL", "10")
        // Mails go nowhere, as often as a test wants.
        .env("GOTRUE_SMTP_MAX_FREQUENCY", "1ns")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true);
    command
}

fn of_settings(secret: &str, settings: Settings) -> Vec<(&'static str, String)> {
    let mut variables = vec![("GOTRUE_JWT_EXP", settings.access_token_life.as_secs().to_string())];
    if settings.refresh_tokens == RefreshTokens::V2 {
        variables.push(("GOTRUE_SECURITY_REFRESH_TOKEN_ALGORITHM_VERSION", "2".to_owned()));
    }
    if settings.signing == Signing::Es256 {
        variables.push(("GOTRUE_JWT_KEYS", new_es256_keys(secret)));
    }
    variables
}

/// JWKs: a new private key, which signs, and the secret, which still verifies what service keys it signed.
fn new_es256_keys(secret: &str) -> String {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    // Uncompressed: 4, then both coordinates.
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let d = pair.private_key().as_be_bytes().unwrap();
    json!([{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "of-the-test", "key_ops": ["sign", "verify"],
        "x": encoded(x), "y": encoded(y), "d": encoded(d.as_ref()),
    }, {
        "kty": "oct", "alg": "HS256", "kid": "of-old", "key_ops": ["verify"], "k": encoded(secret.as_bytes()),
    }])
    .to_string()
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Waits for the first answer; false when the process ended instead.
async fn serves(url: &str, process: &mut Child) -> bool {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        let health = Request::get(format!("{url}/health")).body(String::new()).unwrap();
        if send(health).await.is_ok_and(|answer| answer.status == StatusCode::OK) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}
