//! The GoTrue of the live suites, one for each test that asks for it.
//!
//! By default it is npm's `@supabase/lite`, somebody else's server with GoTrue's paths and answers. With
//! `GOTRUE_BIN` and `DATABASE_URL` in the environment it is that real GoTrue (`real.rs` says what the two
//! must be), and then the suites run all of what they have. Where the two differ, [`Kind`] has a question
//! by the name of the difference: a suite asks it, and never which of the two it has. A test that has nothing to say
//! without a real one is marked `#[ignore]`, so that every run lists it; `bin/test-gotrue` runs all.

pub(crate) mod lite;
mod real;

use std::time::Duration;

use gotrue_sidecar::session::{SessionId, UserId};

use self::{lite::Lite, real::Real};
use super::postgres::Postgres;

/// Signs access tokens, in every test.
const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";

/// Which server answers in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lite,
    Real,
}

/// How the server is to be set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) refresh_tokens: RefreshTokens,
    pub(crate) signing: Signing,
    pub(crate) access_token_life: Duration,
}

/// The form of refresh tokens, GoTrue's `GOTRUE_SECURITY_REFRESH_TOKEN_ALGORITHM_VERSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshTokens {
    V1,
    V2,
}

/// With what access tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signing {
    /// The shared secret.
    Hs256,
    /// A key pair made for this server, whose public half is at `/.well-known/jwks.json`.
    Es256,
}

/// A row of `auth.sessions`. Empty text where the column is `NULL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    pub(crate) email: String,
    pub(crate) aal: String,
    pub(crate) ip: String,
    pub(crate) user_agent: String,
}

/// A running server with nobody in it, which ends with this.
#[derive(Debug)]
pub(crate) struct Gotrue {
    /// Where its paths begin.
    pub(crate) url: String,
    /// Its `GOTRUE_JWT_SECRET`.
    pub(crate) secret: &'static str,
    server: Server,
}

#[derive(Debug)]
enum Server {
    Lite(Lite),
    Real(Real),
}

impl Kind {
    pub(crate) fn of_this_run() -> Self {
        if real::is_given() { Self::Real } else { Self::Lite }
    }

    /// For tests that are marked so: whoever runs them all the same is told what is missing.
    pub(crate) fn must_be_real() {
        let missing = "this test needs a real GoTrue: run it with bin/test-gotrue";
        assert_eq!(Self::of_this_run(), Self::Real, "{missing}");
    }

    /// A changed password ends the user's other sessions.
    pub(crate) fn ends_others_on_password_change(self) -> bool {
        self == Self::Real
    }

    /// `POST /logout` without `scope` means `global`, as it has always done in GoTrue.
    pub(crate) fn logs_out_everywhere_by_default(self) -> bool {
        self == Self::Real
    }

    /// A token without `session_id` logs out all of its user.
    pub(crate) fn logs_out_without_a_session_id(self) -> bool {
        self == Self::Real
    }

    /// Errors have the form of the API version that the request asked for.
    pub(crate) fn knows_error_versions(self) -> bool {
        self == Self::Real
    }

    /// Access tokens have `aal` and `amr`, and rows the address and the agent of whoever signed in.
    pub(crate) fn tells_how_one_signed_in(self) -> bool {
        self == Self::Real
    }

    /// The admin API exists, and with it anonymous users, MFA, OAuth clients, and links that lead to
    /// a PKCE code.
    pub(crate) fn has_admin_api(self) -> bool {
        self == Self::Real
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_tokens: RefreshTokens::V1,
            signing: Signing::Hs256,
            access_token_life: Duration::from_secs(3600),
        }
    }
}

impl Gotrue {
    /// Ready when this returns.
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// Panics over settings that this run's kind does not have: see [`Kind::must_be_real`].
    pub(crate) async fn start_with(settings: Settings) -> Self {
        match Kind::of_this_run() {
            Kind::Lite => {
                let lite = Lite::start(SECRET, settings).await;
                Self { url: lite.url.clone(), secret: SECRET, server: Server::Lite(lite) }
            }
            Kind::Real => Self::of(Real::start(SECRET, settings).await),
        }
    }

    /// Ready when this returns, and with its rows in a PostgreSQL: [`Self::database_url`].
    pub(crate) async fn on_postgres() -> Self {
        match Kind::of_this_run() {
            Kind::Lite => {
                let postgres = Postgres::new().await;
                let lite = Lite::on(Some(postgres), SECRET, Settings::default()).await;
                Self { url: lite.url.clone(), secret: SECRET, server: Server::Lite(lite) }
            }
            Kind::Real => Self::start().await,
        }
    }

    /// A superuser's address of its PostgreSQL.
    pub(crate) fn database_url(&self) -> String {
        match &self.server {
            Server::Lite(lite) => lite.postgres.as_ref().expect("started on_postgres").url(),
            Server::Real(real) => real.database_url(),
        }
    }

    /// A second server on the first one's database; only where there is a [`Kind::Real`] one.
    pub(crate) async fn beside(first: &Self, settings: Settings) -> Self {
        match &first.server {
            Server::Real(real) => Self::of(real.beside(SECRET, settings).await),
            Server::Lite(_) => panic!("@supabase/lite has its database in itself"),
        }
    }

    fn of(real: Real) -> Self {
        Self { url: real.url.clone(), secret: SECRET, server: Server::Real(real) }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.server {
            Server::Lite(_) => Kind::Lite,
            Server::Real(_) => Kind::Real,
        }
    }

    /// The rows of `auth.sessions`, in the order of their ids.
    pub(crate) async fn rows(&self) -> Vec<Row> {
        let mut rows = match &self.server {
            Server::Lite(lite) => lite.rows().await,
            Server::Real(real) => real.rows(),
        };
        rows.sort_by_key(|row| row.session);
        rows
    }

    /// All users, and whether they are banned at this moment.
    pub(crate) fn bans(&self) -> Vec<(UserId, bool)> {
        match &self.server {
            Server::Real(real) => real.bans(),
            Server::Lite(_) => Vec::new(), // without an admin nobody is
        }
    }

    /// Of these rows, which session is whose.
    pub(crate) async fn sessions(&self) -> Vec<(SessionId, UserId)> {
        self.rows().await.into_iter().map(|row| (row.session, row.user)).collect()
    }

    /// Whatever an operator does to the tables; only of a real GoTrue.
    pub(crate) fn sql(&self, statement: &str) {
        match &self.server {
            Server::Real(real) => real.sql(statement),
            Server::Lite(_) => panic!("@supabase/lite keeps its database to itself"),
        }
    }

    /// What the link of the last recovery mail to that address carries.
    pub(crate) async fn recovery_token(&self, email: &str) -> String {
        match &self.server {
            Server::Lite(lite) => lite.recovery_token(email).await,
            Server::Real(real) => real.recovery_token(email),
        }
    }
}
