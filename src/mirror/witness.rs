//! What a served request proves: GoTrue answers `GET /user` only for a session that it has
//! (`internal/api/auth.go:maybeLoadUserOrSession`). So a store that lost a session learns it again before the
//! next refresh does, and sessions that are older than the sidecar become known.

use http::StatusCode;

use super::{
    Answered, Asked,
    record::{Beginning, beginning},
};
use crate::keys::Verdict;
use crate::route::Route;
use crate::session::{Change, Origin, Record};

/// The record of the session whose verified token GoTrue has just served. Only for a session that the store does
/// not know: it says nothing of refresh tokens, and no more than the token does of the rest.
pub fn witnessed(asked: &Asked<'_>, answered: &Answered<'_>) -> Option<Change> {
    let Some(Verdict::Good(claims)) = asked.bearer else {
        return None;
    };
    if asked.route != Route::User || answered.status != StatusCode::OK {
        return None;
    }
    let now = answered.now();
    // not a sign-in: what has been revoked meanwhile stays so
    let origin = Origin::Refresh;
    let Beginning { created_at, began_ms, begun_by_ms } = beginning(origin, claims, asked, answered);
    let record = Record {
        user: claims.user.id()?,
        session: claims.session.id()?,
        refresh_ref: None,
        previous_ref: None,
        counter: None,
        created_at,
        began_ms,
        begun_by_ms,
        refreshed_at: claims.issued_at.unwrap_or(now),
        seen_at: Some(now),
        expires_at: claims.expires_at?,
        earlier_until: None,
        aal: claims.aal,
        factor_id: None,
        amr: claims.amr.methods.clone(),
        role: claims.role.clone(),
        client_id: claims.client_id.clone(),
        anonymous: claims.anonymous,
        ip: None,
        user_agent: None,
    };
    Some(Change::Record { origin, record: Box::new(record), allowed_ms: None })
}
