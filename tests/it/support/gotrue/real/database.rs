//! A database for one real GoTrue.
//!
//! GoTrue's two roles are made in the cluster if missing, and `supabase_auth_admin` gets the password `root`.
//! The migrations run once for each binary, into a template; every database is a copy of it, dropped in the end.

use std::{
    path::Path,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::UNIX_EPOCH,
};

use http::Uri;

/// As GoTrue's own `hack/init_postgres.sql` makes them, but repeatable. A migration grants to `postgres`.
const ROLES: &str = "
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres') THEN CREATE ROLE postgres; END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'supabase_admin') THEN
            CREATE ROLE supabase_admin LOGIN CREATEROLE CREATEDB REPLICATION BYPASSRLS;
        END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'supabase_auth_admin') THEN
            CREATE ROLE supabase_auth_admin LOGIN NOINHERIT CREATEROLE NOREPLICATION;
        END IF;
    END $$;
    ALTER ROLE supabase_auth_admin PASSWORD 'root';
    ALTER ROLE supabase_auth_admin SET search_path = 'auth';";

/// Dropped with this, whoever is still connected.
#[derive(Debug)]
pub(super) struct Database {
    name: String,
}

impl Database {
    /// A copy of what this binary's migrations make.
    pub(super) fn new(binary: &Path) -> Self {
        static TEMPLATE: OnceLock<String> = OnceLock::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let template = TEMPLATE.get_or_init(|| template(binary));
        let name = format!("gotrue_sidecar_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        psql(None, &format!("CREATE DATABASE {name} TEMPLATE {template}"));
        Self { name }
    }

    /// The address under which GoTrue itself comes.
    pub(super) fn url_of_gotrue(&self) -> String {
        url_of(Some("supabase_auth_admin:root"), &self.name)
    }

    /// A superuser's address of it.
    pub(super) fn url(&self) -> String {
        url_of(None, &self.name)
    }

    /// The rows, one a line, their columns separated by `|`.
    pub(super) fn query(&self, sql: &str) -> String {
        psql(Some(&self.name), sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        psql(None, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// A superuser's address of the cluster.
pub(super) fn url() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "names the parts of the test, configures nothing")]
    std::env::var("DATABASE_URL").ok()
}

/// The database that this binary migrated, in this run or an earlier one.
fn template(binary: &Path) -> String {
    let file = binary.metadata().unwrap_or_else(|error| panic!("GOTRUE_BIN={}: {error}", binary.display()));
    let changed = file.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let name = format!("gotrue_sidecar_template_{}_{changed}", file.len());
    if psql(None, &format!("SELECT datname FROM pg_database WHERE datname = '{name}'")).is_empty() {
        psql(None, ROLES);
        // Another name until it is complete.
        let unfinished = Database { name: format!("gotrue_sidecar_unfinished_{}", std::process::id()) };
        psql(None, &format!("CREATE DATABASE {}", unfinished.name));
        unfinished.query("CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin");
        unfinished.query(&format!("GRANT CREATE ON DATABASE {} TO supabase_auth_admin", unfinished.name));
        migrate(binary, &unfinished);
        psql(None, &format!("ALTER DATABASE {} RENAME TO {name}", unfinished.name));
    }
    name
}

fn migrate(binary: &Path, database: &Database) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(binary)
        .arg("migrate")
        .current_dir(folder.path())
        .env_clear()
        .env("GOTRUE_SITE_URL", "http://localhost")
        .env("API_EXTERNAL_URL", "http://localhost")
        .env("GOTRUE_JWT_SECRET", "signs nothing here")
        .env("GOTRUE_DB_DRIVER", "postgres")
        .env("DATABASE_URL", database.url_of_gotrue())
        .output()
        .unwrap();
    assert!(output.status.success(), "`gotrue migrate` failed: {}", String::from_utf8_lossy(&output.stderr));
}

fn psql(database: Option<&str>, sql: &str) -> String {
    let address = database.map_or_else(|| url().unwrap(), |name| url_of(None, name));
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
        .arg(format!("--dbname={address}"))
        .arg(format!("--command={sql}"))
        .env("PGOPTIONS", "--client-min-messages=warning")
        .output()
        .unwrap_or_else(|error| panic!("psql cannot be run ({error}): apt-get install postgresql-client"));
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `DATABASE_URL`, for another user or another database.
fn url_of(user: Option<&str>, database: &str) -> String {
    let given = url().unwrap();
    let uri: Uri = given.parse().unwrap_or_else(|error| panic!("DATABASE_URL: {error}"));
    let authority =
        uri.authority().expect("DATABASE_URL is postgres://user:password@host:port/database").as_str();
    let (own, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.unwrap_or(own);
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("postgres://{user}@{place}/{database}{query}")
}
