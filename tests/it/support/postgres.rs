//! A real PostgreSQL: one cluster for the whole run, in a folder of its own and without durability, gone with
//! this process however that ends; a database in it for each test that asks.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage};

use super::certificates;

/// Starts a cluster in a new folder, says so, and ends it when standard input does. PostgreSQL refuses to run as
/// root, so root becomes Debian's user for it.
const SCRIPT: &str = r#"
    set -eu
    trap '' INT
    bin=$1 port=$2
    as=
    if [ "$(id -u)" = 0 ]; then as='setpriv --reuid=postgres --regid=postgres --clear-groups'; fi
    folder=$(mktemp -d)
    chmod 755 "$folder"
    cp "$3/cert.pem" "$3/key.pem" "$folder"
    chmod 600 "$folder/key.pem"
    if [ "$as" ]; then chown -R postgres "$folder"; fi
    cd "$folder"
    $as "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >initdb.log 2>&1 ||
        { cat initdb.log >&2; exit 1; }
    $as "$bin/postgres" -D "$folder/data" -p "$port" -h 127.0.0.1 -k "$folder" -F \
        -c full_page_writes=off -c max_connections=200 \
        -c ssl=on -c ssl_cert_file="$folder/cert.pem" -c ssl_key_file="$folder/key.pem" >server.log 2>&1 &
    server=$!
    until $as "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
        kill -0 $server 2>/dev/null || { cat server.log >&2; exit 1; }
        sleep 0.05
    done
    echo ready
    cat >/dev/null
    kill -INT $server
    wait $server || true
    rm -rf "$folder"
"#;

/// The cluster, which ends with the last end of the pipe that this holds.
struct Cluster {
    port: u16,
    certificates: TempDir,
    _script: Child,
}

/// A database of one test; it goes with the cluster.
#[derive(Debug)]
pub(crate) struct Postgres {
    port: u16,
    name: String,
}

impl Postgres {
    /// An empty database.
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let port = tokio::task::spawn_blocking(|| cluster().port).await.unwrap();
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Self { port, name };
        database.maintain(&format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    /// Its address, for a role that needs no password.
    pub(crate) fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{}?sslmode=disable", self.port, self.name)
    }

    /// The CA that made the server's certificate, which is for `127.0.0.1`.
    pub(crate) fn ca_file() -> PathBuf {
        cluster().certificates.path().join("ca.pem")
    }

    /// The superuser's address.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// A connection of the superuser's.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    /// Runs statements as the superuser.
    pub(crate) async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap();
    }

    /// The rows of one statement, as text; `NULL` is empty.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let messages = self.client().await.simple_query(sql).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|place| row.get(place).unwrap_or_default().to_owned()).collect())
            .collect()
    }

    async fn maintain(&self, sql: &str) -> Vec<Row> {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port);
        connect(&url).await.query(sql, &[]).await.unwrap()
    }
}

/// A connection that works until it is dropped.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The run's cluster.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start)
}

fn start() -> Cluster {
    let certificates = tempfile::tempdir().unwrap();
    certificates::make(certificates.path());
    // Between finding a free port and using it, somebody else may take it.
    for _ in 0..3 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut script = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "postgres"])
            .arg(binaries())
            .arg(port.to_string())
            .arg(certificates.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line == "ready\n" {
            return Cluster { port, certificates, _script: script };
        }
        script.wait().unwrap();
    }
    panic!("PostgreSQL does not start, its errors are above");
}

/// Where Debian puts what is not for everybody's PATH: of several versions, the newest.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found =
        versions.map(|version| version.unwrap().path().join("bin")).filter(|bin| bin.join("initdb").exists());
    let newest = found.max_by_key(|bin| {
        let version = bin.parent().and_then(|folder| folder.file_name()?.to_str()?.parse::<u32>().ok());
        version.unwrap_or(0)
    });
    newest.expect("PostgreSQL is not installed: apt-get install postgresql")
}
