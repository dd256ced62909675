//! Which bodies must be read: decided from heads alone, so that everything else is streamed.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};

use super::{Asked, is_grant};
use crate::route::Route;

/// What to do with the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Stream it; its head says all there is to know.
    Pass,
    /// Stream it, and read a copy: it may change a session, but the client need not wait for that.
    Tee,
    /// Hold it back until it was read and the store has been told.
    Hold,
}

/// GoTrue's error code, as a header (≥ v2.161.0): with it, an error's body has nothing to add.
pub(super) const ERROR_CODE: &str = "x-sb-error-code";

impl Asked<'_> {
    /// Whether the request's body must be read before it is sent on: a password change is only
    /// visible there, and so is the refresh token of a refresh. Does not look at `body`.
    pub fn reads_body(&self) -> bool {
        match self.route {
            Route::UserUpdate | Route::AdminUserUpdate | Route::OauthToken => true,
            Route::Token => is_grant(self.query, "refresh_token"),
            _ => false,
        }
    }

    /// What to do with the answer's body.
    pub fn inspection(&self, status: StatusCode, headers: &HeaderMap) -> Inspection {
        if !is_json(headers) {
            return Inspection::Pass;
        }
        if status.is_success() {
            self.of_success()
        } else if matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN)
            && !headers.contains_key(ERROR_CODE)
        {
            self.of_refusal(status)
        } else {
            Inspection::Pass
        }
    }

    fn of_success(&self) -> Inspection {
        if hands_out_tokens(self.route) {
            return Inspection::Hold;
        }
        match self.route {
            // The end of a ban stands in the answer.
            Route::AdminUserUpdate if self.fields().is_some_and(|fields| fields.ban) => Inspection::Hold,
            // Endpoints yet to come (GS §1.2): recorded when they answer in the form of a sign-in.
            Route::Other if !is_safe(self.method) && !hands_out_none(self.path) => Inspection::Tee,
            _ => Inspection::Pass,
        }
    }

    /// Only releases without the error code header come here (and errors of hooks).
    fn of_refusal(&self, status: StatusCode) -> Inspection {
        match (self.route, status) {
            (Route::Token | Route::OauthToken, StatusCode::BAD_REQUEST) if self.reads_body() => {
                Inspection::Hold
            }
            (_, StatusCode::FORBIDDEN) if self.bearer.is_some() => Inspection::Hold,
            _ => Inspection::Pass,
        }
    }
}

/// The endpoints whose successful JSON answers carry tokens (GS §1.3).
pub(super) fn hands_out_tokens(route: Route) -> bool {
    matches!(
        route,
        Route::Token
            | Route::Signup
            | Route::Verify
            | Route::Callback
            | Route::SamlAcs
            | Route::OauthToken
            | Route::FactorVerify
            | Route::RecoveryVerify
            | Route::PasskeyVerify
    )
}

/// Endpoints without a name here that are known to hand out nothing: whatever admins do, and
/// enrolling a factor, whose answer is half a megabyte (a picture of a QR code).
fn hands_out_none(path: &str) -> bool {
    path.starts_with("/admin/") || matches!(path, "/factors" | "/factors/")
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..16))
        .is_some_and(|start| start.eq_ignore_ascii_case(b"application/json"))
}
