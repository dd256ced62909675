//! GoTrue's database, of which the audit reads one table: `auth.sessions`.
//!
//! Every question is a read-only transaction of its own, so that a pooler in front of the database may
//! give each to another connection, and none of them holds the database's clean-up back.

mod access;
mod tls;

use tokio_postgres::{
    Client, NoTls, Row as Fields,
    config::SslMode,
    types::{ToSql, Type},
};

use self::{access::Access, tls::Tls};
pub use self::{access::Missing, tls::TlsError};
use crate::{
    config::database::Address,
    session::{Aal, Seconds, SessionId, UserId},
    store::redis::Stamp,
};

/// Before every question. A minute is long for a thousand rows, and short for a lock.
const BEGIN: &str =
    "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '10s'";

/// How much of a `User-Agent` is kept, as the mirror does, bytes.
const AGENT_BYTES: usize = 512;

/// Why the database cannot be read. Shows no password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates to trust.
    #[error("database_url: no TLS to the database")]
    Tls(#[from] TlsError),
    /// No connection, or no login.
    #[error("database_url: cannot connect to the database")]
    Connect(#[source] tokio_postgres::Error),
    /// The table is not there, or not for this role.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A standby may not have what was written last, so what it lacks is not gone.
    #[error(
        "--repair: expected GoTrue's own database at database_url, this is a standby that may lag behind it"
    )]
    Standby,
    /// The database did not answer, or refused.
    #[error("auth.sessions cannot be read")]
    Read(#[source] tokio_postgres::Error),
    /// The connection broke off.
    #[error("the connection to the database broke off")]
    Broken,
}

/// A row of `auth.sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    /// 0 where the row does not say.
    pub(super) created_at: Seconds,
    /// Its last refresh, else its beginning.
    pub(super) stamp: Stamp,
    pub(super) aal: Option<Aal>,
    pub(super) client: Option<String>,
    pub(super) ip: Option<String>,
    pub(super) user_agent: Option<String>,
}

/// A connection whose role may read the table.
pub(super) struct Database {
    client: Client,
    /// What is selected: this release of GoTrue's columns, in the order of [`row`].
    columns: String,
    /// Rows, as the database's statistics have it.
    pub(super) about: Option<u64>,
}

impl Database {
    /// Connects, and looks at what is there and what the role may do. `repair`: what is absent must be gone.
    pub(super) async fn open(address: &Address, repair: bool) -> Result<Self, Error> {
        let client = connect(address).await?;
        let access = Access::of(&client).await?;
        if repair && access.standby {
            return Err(Error::Standby);
        }
        let columns = access.columns()?;
        Ok(Self { client, columns, about: access.about })
    }

    /// The rows behind `after`, at most `limit`, in the order of session ids.
    pub(super) async fn page(&self, after: Option<SessionId>, limit: i64) -> Result<Vec<Row>, Error> {
        let after = after.map_or_else(|| NIL.to_owned(), |id| id.to_string());
        // with its table, for `id` alone would be the text that is selected, which no index orders
        let sql = format!(
            "SELECT {} FROM auth.sessions WHERE id > $1::uuid ORDER BY sessions.id LIMIT $2",
            self.columns
        );
        self.rows(&sql, &[(&after, Type::TEXT), (&limit, Type::INT8)]).await
    }

    /// Those of these sessions that have a row.
    pub(super) async fn rows_of(&self, sessions: &[SessionId]) -> Result<Vec<Row>, Error> {
        let ids: Vec<String> = sessions.iter().map(ToString::to_string).collect();
        let sql = format!("SELECT {} FROM auth.sessions WHERE id = ANY($1::uuid[])", self.columns);
        self.rows(&sql, &[(&ids, Type::TEXT_ARRAY)]).await
    }

    async fn rows(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        let fields = ask(&self.client, sql, values).await.map_err(Error::Read)?;
        fields
            .iter()
            .filter_map(|fields| row(fields).transpose())
            .collect::<Result<_, _>>()
            .map_err(Error::Read)
    }
}

/// Before every id; no session has it.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

async fn ask(
    client: &Client,
    sql: &str,
    values: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Fields>, tokio_postgres::Error> {
    client.batch_execute(BEGIN).await?;
    let fields = client.query_typed(sql, values).await?;
    client.batch_execute("COMMIT").await?;
    Ok(fields)
}

/// Reads what [`Access::columns`] selects. `None` for the nil id, which names no session.
fn row(fields: &Fields) -> Result<Option<Row>, tokio_postgres::Error> {
    let text = |place: usize| fields.try_get::<_, Option<String>>(place);
    let number = |place: usize| {
        let number = fields.try_get::<_, Option<i64>>(place)?;
        Ok::<_, tokio_postgres::Error>(number.and_then(|number| u64::try_from(number).ok()))
    };
    let session = text(0)?.as_deref().and_then(SessionId::parse);
    let user = text(1)?.as_deref().and_then(UserId::parse);
    let (Some(session), Some(user)) = (session, user) else {
        return Ok(None);
    };
    let created_at = number(2)?.unwrap_or(0);
    let stamp = Stamp { refreshed_at: number(3)?.unwrap_or(0).max(created_at), counter: number(4)? };
    Ok(Some(Row {
        user,
        session,
        created_at,
        stamp,
        aal: text(5)?.as_deref().and_then(Aal::parse),
        client: text(6)?,
        ip: text(7)?,
        user_agent: text(8)?.map(cut),
    }))
}

fn cut(mut agent: String) -> String {
    let mut end = agent.len().min(AGENT_BYTES);
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    agent.truncate(end);
    agent
}

async fn connect(address: &Address) -> Result<Client, Error> {
    if address.connection.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = address.connection.connect(NoTls).await.map_err(Error::Connect)?;
        tokio::spawn(connection); // its end shows in the next question
        return Ok(client);
    }
    let tls = Tls::new(address.trust, address.root_cert.as_deref())?;
    let (client, connection) = address.connection.connect(tls).await.map_err(Error::Connect)?;
    tokio::spawn(connection);
    Ok(client)
}
