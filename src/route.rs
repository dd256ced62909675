//! Which of GoTrue's endpoints a request means: decided from method and path alone.
//!
//! Paths match as GoTrue's router (chi) matches them: on the raw bytes, case-sensitive, nothing
//! decoded and nothing cleaned up. A trailing slash is an alias only where GoTrue mounts a
//! sub-router (`internal/api/api.go`: `r.Route`). Whatever is not listed is [`Route::Other`].

use http::Method;

use crate::session::{FactorId, SessionId, UserId};

macro_rules! routes {
    ($($(#[$doc:meta])* $name:ident = $template:literal, [$($method:literal)+];)+) => {
        /// An endpoint of GoTrue, as far as the sidecar tells them apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Route {
            $($(#[$doc])* $name,)+
            /// Everything else.
            Other,
        }

        impl Route {
            /// Every route with the methods it can have, for tables and for metrics that start at zero.
            pub const ALL: &'static [(Self, &'static [&'static str])] = &[
                $((Self::$name, &[$($method),+]),)+
                (Self::Other, &METHODS),
            ];

            /// The path template: the `route` label of metrics and of the access log.
            pub fn template(self) -> &'static str {
                match self {
                    $(Self::$name => $template,)+
                    Self::Other => "other",
                }
            }
        }
    };
}

/// The closed set of `method` labels.
pub const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"];

routes! {
    /// Sign-in by password, PKCE code, `id_token` or web3; refresh.
    Token = "/token", ["POST"];
    /// Sign-up, with or without an identity.
    Signup = "/signup", ["POST"];
    /// Links and codes sent by mail or SMS.
    Verify = "/verify", ["GET" "POST"];
    /// Return from an external provider.
    Callback = "/callback", ["GET" "POST"];
    /// Return from a SAML identity provider.
    SamlAcs = "/sso/saml/acs", ["POST"];
    /// GoTrue as an OAuth server: code and refresh grants.
    OauthToken = "/oauth/token", ["POST"];
    /// A second factor is checked.
    FactorVerify = "/factors/{id}/verify", ["POST"];
    /// A recovery code is used as second factor.
    RecoveryVerify = "/factors/recovery-codes/verify", ["POST"];
    /// Sign-in with a passkey.
    PasskeyVerify = "/passkeys/authentication/verify", ["POST"];
    /// Logout, all scopes.
    Logout = "/logout", ["POST"];
    /// The user's own data, password among them, is changed.
    UserUpdate = "/user", ["PUT"];
    /// The user's own data.
    User = "/user", ["GET"];
    /// The user revokes an OAuth client's grant.
    GrantRevoke = "/user/oauth/grants", ["DELETE"];
    /// The user removes a second factor.
    FactorDelete = "/factors/{id}", ["DELETE"];
    /// An admin changes a user: password, ban.
    AdminUserUpdate = "/admin/users/{id}", ["PUT"];
    /// An admin deletes a user.
    AdminUserDelete = "/admin/users/{id}", ["DELETE"];
    /// An admin removes a user's second factor.
    AdminFactorDelete = "/admin/users/{id}/factors/{id}", ["DELETE"];
    /// An admin deletes an OAuth client.
    AdminClientDelete = "/admin/oauth/clients/{id}", ["DELETE"];
    /// The caller's own sessions; the sidecar's, like the three below (contract §7).
    Sessions = "/sessions", ["GET" "DELETE"];
    /// One of the caller's own sessions.
    Session = "/sessions/{id}", ["DELETE"];
    /// A user's sessions, for an admin.
    AdminUserSessions = "/admin/users/{id}/sessions", ["GET" "DELETE"];
    /// One session, for an admin.
    AdminSession = "/admin/sessions/{id}", ["GET" "DELETE"];
    /// Liveness, polled by gateways and compose files.
    Health = "/health", ["GET"];
    /// Settings, read by every client at start.
    Settings = "/settings", ["GET"];
    /// Public signing keys.
    Jwks = "/.well-known/jwks.json", ["GET"];
    /// Start of a sign-in with an external provider.
    Authorize = "/authorize", ["GET"];
    /// One-time codes by mail or SMS.
    Otp = "/otp", ["POST"];
    /// Password recovery.
    Recover = "/recover", ["POST"];
}

impl Route {
    /// The route of the session API that a path means, whatever the method; to be asked before [`Route::of`], and
    /// only where that API is on. GoTrue has nothing there (contract §7). A trailing slash is an alias, as
    /// everywhere where GoTrue mounts a sub-router.
    pub fn of_session_api(path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == "/sessions" {
            return Some(Self::Sessions);
        }
        if let Some([_, None, ..]) = segments(path, "/sessions/") {
            return Some(Self::Session);
        }
        if let Some([_, None, ..]) = segments(path, "/admin/sessions/") {
            return Some(Self::AdminSession);
        }
        match segments(path, "/admin/users/") {
            Some([_, Some("sessions"), None, _]) => Some(Self::AdminUserSessions),
            _ => None,
        }
    }

    /// One that [`Route::of_session_api`] gives.
    pub fn is_of_session_api(self) -> bool {
        matches!(self, Self::Sessions | Self::Session | Self::AdminUserSessions | Self::AdminSession)
    }

    /// Classifies a request among GoTrue's endpoints. `path` is without the query and after the configured prefix was taken off.
    pub fn of(method: &Method, path: &str) -> Self {
        match *method {
            Method::POST => Self::of_post(path),
            Method::GET => Self::of_get(path),
            Method::PUT => Self::of_put(path),
            Method::DELETE => Self::of_delete(path),
            _ => Self::Other,
        }
    }

    fn of_post(path: &str) -> Self {
        match path {
            "/token" => Self::Token,
            "/signup" | "/signup/" => Self::Signup,
            "/verify" | "/verify/" => Self::Verify,
            "/callback" | "/callback/" => Self::Callback,
            "/sso/saml/acs" => Self::SamlAcs,
            "/oauth/token" => Self::OauthToken,
            "/logout" => Self::Logout,
            "/otp" => Self::Otp,
            "/recover" => Self::Recover,
            "/passkeys/authentication/verify" => Self::PasskeyVerify,
            "/factors/recovery-codes/verify" => Self::RecoveryVerify,
            _ => match segments(path, "/factors/") {
                Some([_, Some("verify"), None, None]) => Self::FactorVerify,
                _ => Self::Other,
            },
        }
    }

    fn of_get(path: &str) -> Self {
        match path {
            "/user" | "/user/" => Self::User,
            "/health" => Self::Health,
            "/settings" => Self::Settings,
            "/verify" | "/verify/" => Self::Verify,
            "/callback" | "/callback/" => Self::Callback,
            "/authorize" => Self::Authorize,
            "/.well-known/jwks.json" => Self::Jwks,
            _ => Self::Other,
        }
    }

    fn of_put(path: &str) -> Self {
        match path {
            "/user" | "/user/" => Self::UserUpdate,
            _ => match segments(path, "/admin/users/") {
                Some([_, None | Some(""), None, None]) => Self::AdminUserUpdate,
                _ => Self::Other,
            },
        }
    }

    fn of_delete(path: &str) -> Self {
        if matches!(path, "/user/oauth/grants" | "/user/oauth/grants/") {
            return Self::GrantRevoke;
        }
        if let Some([_, None | Some(""), None, None]) = segments(path, "/factors/") {
            return Self::FactorDelete;
        }
        if let Some([_, None | Some(""), None, None]) = segments(path, "/admin/oauth/clients/") {
            return Self::AdminClientDelete;
        }
        match segments(path, "/admin/users/") {
            Some([_, None | Some(""), None, None]) => Self::AdminUserDelete,
            Some([_, Some("factors"), Some(factor), None | Some("")]) if !factor.is_empty() => {
                Self::AdminFactorDelete
            }
            _ => Self::Other,
        }
    }
}

/// Up to four segments of `path` below `base`; `None` where it is not below, the first is empty, or
/// there are more.
fn segments<'a>(path: &'a str, base: &str) -> Option<[Option<&'a str>; 4]> {
    let mut parts = path.strip_prefix(base)?.split('/');
    let found = [parts.next(), parts.next(), parts.next(), parts.next()];
    let first_is_there = found.first().copied().flatten().is_some_and(|first| !first.is_empty());
    (first_is_there && parts.next().is_none()).then_some(found)
}

/// The user a path below `/admin/users/` names; `None` where that is not a UUID as GoTrue reads it
/// (`internal/api/admin.go:loadUser`).
pub fn user_in_path(path: &str) -> Option<UserId> {
    let [id, ..] = segments(path, "/admin/users/")?;
    UserId::parse_as_gotrue(id?)
}

/// The session a path of the session API names, in any form of a UUID that GoTrue reads.
pub fn session_in_path(path: &str) -> Option<SessionId> {
    let [id, ..] = segments(path, "/sessions/").or_else(|| segments(path, "/admin/sessions/"))?;
    SessionId::parse_as_gotrue(id?)
}

/// The second factor a path below `/factors/` or `/admin/users/{id}/factors/` names.
pub fn factor_in_path(path: &str) -> Option<FactorId> {
    let of_user = || segments(path, "/factors/").and_then(|[id, ..]| id);
    let of_admin = || segments(path, "/admin/users/").and_then(|[_, _, id, _]| id);
    FactorId::parse_as_gotrue(of_user().or_else(of_admin)?)
}

/// The OAuth client a path below `/admin/oauth/clients/` names.
pub fn client_in_path(path: &str) -> Option<&str> {
    let [id, ..] = segments(path, "/admin/oauth/clients/")?;
    id
}

/// The `method` label: the method itself if it is one of [`METHODS`], else `other`.
pub fn method_label(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_as_gotrues_router_matches_them() {
        let table = [
            ("POST", "/token", Route::Token),
            ("POST", "/token/", Route::Other),
            ("POST", "/t%6Fken", Route::Other),
            ("POST", "//token", Route::Other),
            ("POST", "/Token", Route::Other),
            ("GET", "/token", Route::Other),
            ("POST", "/signup/", Route::Signup),
            ("POST", "/signup//", Route::Other),
            ("GET", "/verify/", Route::Verify),
            ("POST", "/callback/", Route::Callback),
            ("POST", "/logout/", Route::Other),
            ("PUT", "/user/", Route::UserUpdate),
            ("GET", "/user", Route::User),
            ("POST", "/factors/a/verify", Route::FactorVerify),
            ("POST", "/factors/a/verify/", Route::Other),
            ("POST", "/factors//verify", Route::Other),
            ("POST", "/factors/recovery-codes/verify", Route::RecoveryVerify),
            ("DELETE", "/factors/a", Route::FactorDelete),
            ("DELETE", "/factors/a/", Route::FactorDelete),
            ("DELETE", "/factors/", Route::Other),
            ("PUT", "/admin/users/u", Route::AdminUserUpdate),
            ("PUT", "/admin/users/u/", Route::AdminUserUpdate),
            ("DELETE", "/admin/users/u", Route::AdminUserDelete),
            ("DELETE", "/admin/users/u/factors/f", Route::AdminFactorDelete),
            ("DELETE", "/admin/users/u/factors/f/", Route::AdminFactorDelete),
            ("DELETE", "/admin/users/u/factors/", Route::Other),
            ("DELETE", "/admin/users/u/passkeys/p", Route::Other),
            ("DELETE", "/admin/users/u/factors/f/x", Route::Other),
            ("DELETE", "/admin/oauth/clients/c", Route::AdminClientDelete),
            ("DELETE", "/user/oauth/grants/", Route::GrantRevoke),
            ("OPTIONS", "/token", Route::Other),
            ("PROPFIND", "/", Route::Other),
        ];
        for (method, path, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(Route::of(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn the_session_api_is_told_by_its_paths() {
        let table = [
            ("/sessions", Some(Route::Sessions)),
            ("/sessions/", Some(Route::Sessions)),
            ("/sessions//", None),
            ("/sessions/a", Some(Route::Session)),
            ("/sessions/a/", Some(Route::Session)),
            ("/sessions/a/b", None),
            ("/Sessions", None),
            ("//sessions", None),
            ("/session%73", None),
            ("/sessionsx", None),
            ("/admin/sessions/a", Some(Route::AdminSession)),
            ("/admin/sessions/a/", Some(Route::AdminSession)),
            ("/admin/sessions/", None),
            ("/admin/sessions", None),
            ("/admin/users/u/sessions", Some(Route::AdminUserSessions)),
            ("/admin/users/u/sessions/", Some(Route::AdminUserSessions)),
            ("/admin/users//sessions", None),
            ("/admin/users/u/sessions/s", None),
            ("/admin/users/u", None),
            ("/user", None),
        ];
        for (path, expected) in table {
            assert_eq!(Route::of_session_api(path), expected, "{path}");
            if expected.is_some() {
                // GoTrue's own table knows nothing of it, so where the API is off the path is GoTrue's
                assert_eq!(Route::of(&Method::GET, path), Route::Other, "{path}");
                assert_eq!(Route::of(&Method::DELETE, path), Route::Other, "{path}");
            }
        }
        let id = "0191d1a0-0000-7000-8000-000000000001";
        for path in ["/sessions/", "/admin/sessions/"] {
            assert_eq!(session_in_path(&format!("{path}{id}")), SessionId::parse(id));
            assert_eq!(session_in_path(&format!("{path}{id}/")), SessionId::parse(id));
            assert_eq!(session_in_path(&format!("{path}all")), None);
        }
        assert_eq!(user_in_path(&format!("/admin/users/{id}/sessions")), UserId::parse(id));
    }

    #[test]
    fn ids_come_out_of_admin_paths() {
        let user = "0191d1a0-0000-7000-8000-000000000001";
        assert_eq!(user_in_path(&format!("/admin/users/{user}/factors/f")), UserId::parse(user));
        assert_eq!(user_in_path("/admin/users/me"), None);
        let factor = "0191d1a0-0000-7000-8000-0000000000f1";
        for path in ["/factors/", "/admin/users/u/factors/"] {
            let found = factor_in_path(&format!("{path}{factor}"));
            assert_eq!(found, FactorId::parse_as_gotrue(factor));
        }
        assert_eq!(factor_in_path(&format!("/factors/{factor}/verify")), FactorId::parse_as_gotrue(factor));
        assert_eq!(factor_in_path("/factors/recovery-codes/verify"), None);
        assert_eq!(client_in_path("/admin/oauth/clients/c1/"), Some("c1"));
    }

    #[test]
    fn labels_are_a_closed_set() {
        assert_eq!(method_label(&Method::PUT), "PUT");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
