//! The check endpoint (contract §8), and the threats to it (docs/security.md names the test of each).

mod at_once;
mod caches;
mod credentials;
mod gateway;
mod latency;
mod outage;
mod over;
mod requests;
mod staleness;

use super::*;

/// Nobody is asked here but the check, and nobody here is in a hurry.
const UNHURRIED: [&str; 4] = ["--jwt-secret", SECRET, "--check-timeout", "10s"];

/// Whoever notices a change within this has not waited for time to pass.
const NEVER: [&str; 2] = ["--check-max-staleness", "60s"];

const IDENTITY: [&str; 6] =
    ["x-auth-user", "x-auth-session", "x-auth-role", "x-auth-email", "x-auth-aal", "x-auth-expires"];

const LOOKUPS: &str = "gotrue_sidecar_store_commands_total{command=\"lookup\",result=\"ok\"}";

impl World {
    async fn checking(flags: &[&str]) -> Self {
        Self::with(&[&UNHURRIED, flags].concat(), always(no_content())).await
    }

    /// One more replica, which checks as this one does.
    fn replica(&self, flags: &[&str]) -> Sidecar {
        another(&self.redis, &self.upstream, &self.clock, &[&UNHURRIED, flags].concat())
    }

    async fn check(&self, login: &Login) -> Answer {
        check(&self.sidecar, &login.access(&self.signer)).await
    }

    async fn check_token(&self, token: &str) -> Answer {
        check(&self.sidecar, token).await
    }

    async fn checked(&self, result: &str) -> usize {
        self.count(&format!("gotrue_sidecar_check_total{{result=\"{result}\"}}")).await
    }

    /// Puts up a tombstone by hand, as somebody would who has nothing but redis-cli.
    async fn bury(&self, login: &Login) {
        let key = format!("gotrue:{{{}}}:revoked:{}", login.user, login.session);
        let () = self.redis(&["SET", &key, "by hand", "EX", "3600"]).await;
    }
}

async fn check(sidecar: &Sidecar, token: &str) -> Answer {
    check_with(sidecar, Method::GET, "/check", &[("authorization", &format!("Bearer {token}"))], "").await
}

async fn check_with(
    sidecar: &Sidecar,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{}{target}", sidecar.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = send(request.body(body.to_owned()).unwrap()).await.unwrap();
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    answer
}

/// Waits until the store tells this sidecar of changes.
async fn hears(sidecar: &Sidecar) {
    until("the store tells of changes", async || {
        sample(sidecar.admin, "gotrue_sidecar_check_push_up").await == "1"
    })
    .await;
}

/// Has a sidecar remember a session as live.
async fn remembered(sidecar: &Sidecar, token: &str) {
    // the first question touches the record, which is heard of
    for _ in 0..3 {
        assert_eq!(check(sidecar, token).await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The identity that an answer tells, each header exactly once.
fn identity(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{answer:?}");
    IDENTITY
        .map(|name| {
            let values: Vec<_> = answer.headers.get_all(name).iter().collect();
            assert_eq!(values.len(), 1, "{name} in {answer:?}");
            values[0].to_str().unwrap()
        })
        .to_vec()
}

fn said(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status.as_u16(), answer.error_code())
}

const REVOKED: (u16, Option<&str>) = (403, Some("session_not_found"));
const UNAVAILABLE: (u16, Option<&str>) = (503, Some("service_unavailable"));
