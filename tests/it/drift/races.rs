//! Traffic goes on while an audit runs: what it does stands (contract I3, I9).

use std::time::Duration;

use gotrue_sidecar::session::{Change, Reason, Record, State, Which};

use super::{World, excused, found};
use crate::support::until;

/// Long enough for a test to do something between the two looks.
const SETTLE: Duration = Duration::from_secs(1);

impl World {
    /// Questions that the audit has asked the database, as its connection's last change of state tells.
    async fn last_question(&self) -> String {
        let sql = "SELECT state_change FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'gotrue-sidecar audit'
                         AND state = 'idle'";
        self.postgres.rows(sql).await.into_iter().flatten().collect()
    }

    /// Waits for an audit that has had its first look at everything, and waits for the second.
    async fn first_look(&self) {
        until("an audit that waits", async || {
            let before = self.last_question().await;
            tokio::time::sleep(SETTLE / 5).await;
            !before.is_empty() && before == self.last_question().await
        })
        .await;
    }
}

#[tokio::test]
async fn what_arrives_between_the_two_looks_is_no_drift() {
    let world = World::new().await;
    let (late, gone, refreshed) = (world.record(), world.session().await, world.session().await);
    world.insert(&late).await;
    world.set(&refreshed, "refreshed_at = refreshed_at + interval '1 minute'").await;
    let between = async {
        world.first_look().await;
        world.keep(&late).await;
        world.keep(&Record { refreshed_at: refreshed.refreshed_at + 60, ..refreshed.clone() }).await;
        world.delete_row(&gone).await;
        let logout = end(&world, &gone);
        world.store().apply(&[logout], world.now).await.unwrap();
    };
    let (report, ()) = tokio::join!(world.audit_as("postgres", true, SETTLE), between);
    let report = report.unwrap();
    assert_eq!((found(&report), report.left()), (vec![], 0));
    assert_eq!(world.live(&late).await, late, "its own record, not the row's");
    assert_eq!(world.state(&gone).await, State::Revoked);
}

#[tokio::test]
async fn a_session_that_is_logged_out_between_the_two_looks_stays_ended() {
    let world = World::new().await;
    let record = world.record();
    world.insert(&record).await;
    let between = async {
        world.first_look().await;
        // the tombstone is there, GoTrue's own deletion is not yet
        let logout = end(&world, &record);
        world.store().apply(&[logout], world.now).await.unwrap();
    };
    let (report, ()) = tokio::join!(world.audit_as("postgres", true, SETTLE), between);
    assert_eq!(excused(&report.unwrap()), [(gotrue_sidecar::drift::Excuse::EndedHere, 1)]);
    assert_eq!(world.state(&record).await, State::Revoked);
}

#[tokio::test]
async fn a_row_that_goes_while_its_record_is_written_takes_the_record_with_it() {
    let world = World::new().await;
    let record = world.record();
    world.insert(&record).await;
    let between = async {
        world.first_look().await;
        let before = world.last_question().await;
        world.redis.hang();
        until("the second look at the row", async || {
            let now = world.last_question().await;
            !now.is_empty() && now != before
        })
        .await;
        // deleted past the sidecar, or by a logout that knew of no record to end
        world.delete_row(&record).await;
        world.redis.go_on();
    };
    let (report, ()) = tokio::join!(world.audit_as("postgres", true, SETTLE), between);
    let report = report.unwrap();
    assert_eq!((found(&report), report.left()), (vec![], 0));
    assert_eq!(world.state(&record).await, State::Revoked);
}

fn end(world: &World, record: &Record) -> Change {
    Change::End {
        user: record.user,
        which: Which::One(record.session),
        reason: Reason::Logout,
        sent_ms: world.now * 1000,
        expires_at: None,
        ended_in_gotrue: true,
    }
}
