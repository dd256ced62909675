//! What the role may see of `auth.sessions`, asked of the catalogue before anything is read: a role that
//! sees fewer rows than there are would make every other session look ended.

use tokio_postgres::{Client, types::Type};

use super::{Error, ask};

/// Columns of `auth.sessions` in the order in which they are read, and what is selected for each. A release
/// of GoTrue may be too old for those of the second kind. `refresh_token_hmac_key` is not among them: it
/// makes refresh tokens.
const COLUMNS: [(&str, Need, &str); 9] = [
    ("id", Need::Always, "id::text"),
    ("user_id", Need::Always, "user_id::text"),
    ("created_at", Need::Always, "floor(extract(epoch FROM created_at))::bigint"),
    // without a time zone, and UTC
    ("refreshed_at", Need::IfThere("bigint"), "floor(extract(epoch FROM refreshed_at))::bigint"),
    ("refresh_token_counter", Need::IfThere("bigint"), "refresh_token_counter::bigint"),
    ("aal", Need::IfThere("text"), "aal::text"),
    ("oauth_client_id", Need::IfThere("text"), "oauth_client_id::text"),
    ("ip", Need::IfThere("text"), "host(ip)"),
    ("user_agent", Need::IfThere("text"), "left(user_agent, 512)"),
];

/// Whether a column is there in every release.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    /// Else a `NULL` of this type is read.
    IfThere(&'static str),
}

/// Row-level security hides rows from a role that is neither owner nor `BYPASSRLS`, but where a policy shows all.
const TABLE: &str = "
    SELECT quote_ident(current_user), pg_is_in_recovery(),
           namespace.oid IS NOT NULL, coalesce(class.reltuples, -1)::bigint, class.oid IS NOT NULL,
           coalesce(has_schema_privilege(namespace.oid, 'USAGE'), false),
           NOT coalesce(row_security_active(class.oid), false) OR (
               SELECT coalesce(bool_or(polpermissive AND pg_get_expr(polqual, polrelid) = 'true'), false)
                      AND NOT coalesce(bool_or(NOT polpermissive), false)
               FROM pg_policy
               WHERE polrelid = class.oid AND polcmd IN ('r', '*')
                     AND EXISTS (SELECT FROM unnest(polroles) AS role
                                 WHERE CASE WHEN role = 0 THEN true ELSE pg_has_role(role, 'USAGE') END))
    FROM (SELECT) AS one
    LEFT JOIN pg_namespace AS namespace ON nspname = 'auth'
    LEFT JOIN pg_class AS class
        ON relnamespace = namespace.oid AND relname = 'sessions' AND relkind IN ('r', 'p', 'v')";

const VISIBLE: &str = "
    SELECT attname::text, has_column_privilege(attrelid, attnum, 'SELECT')
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'auth' AND relname = 'sessions' AND attnum > 0 AND NOT attisdropped
          AND attname::text = ANY($1)";

/// What is missing before the table can be read, and the command that changes that.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Another database, or GoTrue has not migrated it yet.
    #[error("database_url: expected GoTrue's database, with the table auth.sessions; there is no such {0}")]
    Table(&'static str),
    /// A release of GoTrue that nobody here knows.
    #[error("auth.sessions: expected the column {0}")]
    Column(&'static str),
    /// The role may not look into the schema.
    #[error("the role {role} may not read auth.sessions; missing: GRANT USAGE ON SCHEMA auth TO {role}")]
    Usage {
        /// As SQL writes it.
        role: String,
    },
    /// The role may not read a column.
    #[error("the role {role} may not read auth.sessions; missing: GRANT SELECT ({}) ON auth.sessions TO {role}", columns.join(", "))]
    Select {
        /// As SQL writes it.
        role: String,
        /// Those it may not read.
        columns: Vec<&'static str>,
    },
    /// The role is shown none or some of the rows.
    #[error(
        "row-level security hides rows of auth.sessions from the role {role}; missing: ALTER ROLE {role} BYPASSRLS, \
         or CREATE POLICY {role}_reads ON auth.sessions FOR SELECT TO {role} USING (true)"
    )]
    Rows {
        /// As SQL writes it.
        role: String,
    },
}

/// How far the role sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    NoSchema,
    NoTable,
    NotIntoSchema,
    SomeRows,
    AllRows,
}

/// What was found.
pub(super) struct Access {
    pub(super) standby: bool,
    pub(super) about: Option<u64>,
    role: String,
    sight: Sight,
    /// Columns that are there, and whether the role may read them.
    visible: Vec<(String, bool)>,
}

impl Access {
    pub(super) async fn of(client: &Client) -> Result<Self, Error> {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
        let tables = ask(client, TABLE, &[]).await.map_err(Error::Read)?;
        let columns = ask(client, VISIBLE, &[(&names, Type::TEXT_ARRAY)]).await.map_err(Error::Read)?;
        let table = tables.first().ok_or(Error::Broken)?;
        let read = || {
            let about: i64 = table.try_get(3)?;
            let sight = match (table.try_get(2)?, table.try_get(4)?, table.try_get(5)?, table.try_get(6)?) {
                (false, ..) => Sight::NoSchema,
                (_, false, ..) => Sight::NoTable,
                (_, _, false, _) => Sight::NotIntoSchema,
                (.., false) => Sight::SomeRows,
                (.., true) => Sight::AllRows,
            };
            let column = |it: &tokio_postgres::Row| Ok((it.try_get(0)?, it.try_get(1)?));
            Ok(Self {
                role: table.try_get(0)?,
                standby: table.try_get(1)?,
                about: u64::try_from(about).ok(),
                sight,
                visible: columns.iter().map(column).collect::<Result<_, _>>()?,
            })
        };
        read().map_err(Error::Read)
    }

    /// What to select, where the role may see all of it.
    pub(super) fn columns(&self) -> Result<String, Missing> {
        let role = || self.role.clone();
        match self.sight {
            Sight::NoSchema => return Err(Missing::Table("schema")),
            Sight::NoTable => return Err(Missing::Table("table")),
            Sight::NotIntoSchema => return Err(Missing::Usage { role: role() }),
            Sight::SomeRows | Sight::AllRows => {}
        }
        let allowed = |name: &str| self.visible.iter().find(|(column, _)| column == name).map(|it| it.1);
        let hidden = COLUMNS.iter().map(|(name, ..)| *name).filter(|name| allowed(name) == Some(false));
        let columns: Vec<&str> = hidden.collect();
        if !columns.is_empty() {
            return Err(Missing::Select { role: role(), columns });
        }
        if self.sight == Sight::SomeRows {
            return Err(Missing::Rows { role: role() });
        }
        let selected = COLUMNS.iter().map(|(name, need, sql)| match (allowed(name), need) {
            (Some(_), _) => Ok((*sql).to_owned()),
            (None, Need::IfThere(kind)) => Ok(format!("NULL::{kind}")),
            (None, Need::Always) => Err(Missing::Column(name)),
        });
        Ok(selected.collect::<Result<Vec<_>, _>>()?.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(visible: &[(&str, bool)]) -> Access {
        let visible = visible.iter().map(|(name, allowed)| ((*name).to_owned(), *allowed)).collect();
        Access { standby: false, about: None, role: "reader".to_owned(), sight: Sight::AllRows, visible }
    }

    #[test]
    fn a_column_that_this_release_lacks_is_read_as_null() {
        let old = access(&[("id", true), ("user_id", true), ("created_at", true), ("aal", true)]);
        let columns = old.columns().unwrap();
        assert!(columns.starts_with("id::text, user_id::text, floor("), "{columns}");
        assert!(columns.contains("NULL::bigint, NULL::bigint, aal::text, NULL::text"), "{columns}");
    }

    #[test]
    fn what_is_missing_is_the_command_that_gives_it() {
        let full = [("id", true), ("user_id", true), ("created_at", false), ("aal", false)];
        let cases = [
            (Access { sight: Sight::NoTable, ..access(&full) }, "there is no such table"),
            (Access { sight: Sight::NoSchema, ..access(&full) }, "there is no such schema"),
            (Access { sight: Sight::NotIntoSchema, ..access(&full) }, "GRANT USAGE ON SCHEMA auth TO reader"),
            (access(&full), "GRANT SELECT (created_at, aal) ON auth.sessions TO reader"),
            (Access { sight: Sight::SomeRows, ..access(&full[..2]) }, "ALTER ROLE reader BYPASSRLS"),
            (access(&full[..2]), "expected the column created_at"),
        ];
        for (access, expected) in cases {
            let error = access.columns().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
