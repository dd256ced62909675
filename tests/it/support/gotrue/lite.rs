//! npm's `@supabase/lite`, started by `tests/live/gotrue-lite.mjs`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use gotrue_sidecar::session::{SessionId, UserId};
use http::Request;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{RefreshTokens, Row, Settings, Signing};
use crate::support::{http::send, postgres::Postgres};

/// One server with a database of its own, in memory or in a PostgreSQL.
#[derive(Debug)]
pub(super) struct Lite {
    pub(super) url: String,
    pub(super) postgres: Option<Postgres>,
    /// Killed when dropped. It also ends at the end of its standard input, should this process be killed.
    _process: Child,
}

impl Lite {
    pub(super) async fn start(secret: &str, settings: Settings) -> Self {
        Self::on(None, secret, settings).await
    }

    pub(super) async fn on(postgres: Option<Postgres>, secret: &str, settings: Settings) -> Self {
        assert_eq!(settings.refresh_tokens, RefreshTokens::V1, "@supabase/lite has no v2 refresh tokens");
        assert_eq!(settings.signing, Signing::Hs256, "@supabase/lite signs with HS256 only");
        let folder = live_folder();
        let mut process = Command::new(folder.join("node_modules/.bin/node"))
            .arg(folder.join("gotrue-lite.mjs"))
            .env("PORT", "0")
            .env("GOTRUE_JWT_SECRET", secret)
            .env("GOTRUE_JWT_EXP", settings.access_token_life.as_secs().to_string())
            .env("LITE_AUTH_BCRYPT_COST", "4")
            .envs(postgres.as_ref().map(|postgres| ("DATABASE_URL", postgres.url())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap();
        let url = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
        let url =
            url.unwrap_or_else(|| panic!("gotrue-lite.mjs did not start, its errors are above")).to_owned();
        Self { url, postgres, _process: process }
    }

    pub(super) async fn rows(&self) -> Vec<Row> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let rows = self.own("sessions").await;
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| Row {
                session: SessionId::parse(&text(row, "id")).unwrap(),
                user: UserId::parse(&text(row, "user_id")).unwrap(),
                email: text(row, "email"),
                aal: text(row, "aal"),
                ip: text(row, "ip"),
                user_agent: text(row, "user_agent"),
            })
            .collect()
    }

    pub(super) async fn recovery_token(&self, email: &str) -> String {
        let mails = self.own("mails").await;
        let of_user = |mail: &&Value| mail["to"].as_str().is_some_and(|to| to.contains(email));
        let mail = mails.as_array().unwrap().iter().rev().find(of_user).unwrap();
        let text = mail["text"].as_str().unwrap();
        let token = text.split_once("token=").unwrap_or_else(|| panic!("no token in {text}")).1;
        token
            .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
            .next()
            .unwrap()
            .to_owned()
    }

    /// What only the script's own paths tell.
    async fn own(&self, what: &str) -> Value {
        let request = Request::get(format!("{}/_test/{what}", self.url)).body(String::new()).unwrap();
        send(request).await.unwrap().json()
    }
}

/// `tests/live`, which must have been set up.
pub(crate) fn live_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live");
    let node = folder.join("node_modules/.bin/node");
    assert!(node.exists(), "{} is missing: run `make setup`", node.display());
    folder
}
