//! Random histories through two sidecars on one Redis, held against a model of GoTrue (I3, I4, I9, I11).
//!
//! Requests are held on their way to GoTrue, answers on their way back, and let go in any order. At every
//! step what was revoked stays revoked. In the end the store has GoTrue's sessions, but for those that
//! the contract names:
//!
//! - a sign-in and an ending of the same user that were under way at the same time (§6.1): the session may
//!   be taken for live until GoTrue's next 403;
//! - a session that was revoked here, or whose logout GoTrue refused: it ends in GoTrue at its next refresh
//!   (§6.3).
//!
//! So every client then uses its tokens once, and store and GoTrue must be equal. Two second factors of one
//! user are never verified at the same time: which of the two sessions GoTrue ends cannot be known here.
//!
//! In half of the histories Redis deals with so few sessions at once that most changes to many are pending while
//! the next ones are made.
//!
//! `PROPTEST_CASES` sets how many histories are tried; a failing one is printed, made small.

mod driver;
pub(crate) mod gotrue;
mod world;

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};

use driver::Driver;
use world::World;

/// Histories in an ordinary run.
const CASES: u32 = 250;

/// Nearly every change to many sessions is to more than this.
const SMALL_STEP: u32 = 1;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    SignIn,
    Refresh,
    /// With the token before the newest: the answer is given once more.
    RefreshAgain,
    Logout,
    LogoutLocal,
    LogoutOthers,
    ChangePassword,
    VerifyFactor,
    AdminPassword,
    AdminDelete,
    Ban,
    Unban,
    /// Through the store, as an operator or another replica would: GoTrue is not told.
    Revoke,
    /// Likewise, by a replica that went down before it swept: what is pending stays so until another sweeps.
    RevokeOthers,
    GetUser,
}

impl Deed {
    /// May end sessions besides the one it is done in.
    fn ends_others(self) -> bool {
        matches!(
            self,
            Self::Logout
                | Self::LogoutLocal
                | Self::LogoutOthers
                | Self::ChangePassword
                | Self::VerifyFactor
                | Self::AdminPassword
                | Self::AdminDelete
        )
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Move {
    /// Whose it is picks a user or a session among those that are there.
    Do { deed: Deed, whose: usize, replica: usize, held_before: bool, held_after: bool },
    /// One of those that are held goes on.
    Release(usize),
    /// Time passes.
    Pass { ms: u64 },
}

fn a_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        5 => Just(Deed::SignIn),
        6 => Just(Deed::Refresh),
        3 => Just(Deed::RefreshAgain),
        4 => select(vec![Deed::Logout, Deed::LogoutLocal, Deed::LogoutOthers]),
        3 => select(vec![Deed::ChangePassword, Deed::VerifyFactor, Deed::GetUser]),
        2 => select(vec![Deed::Revoke, Deed::RevokeOthers]),
        1 => select(vec![Deed::AdminPassword, Deed::AdminDelete, Deed::Ban, Deed::Unban]),
    ]
}

/// Few sessions end but by changes that are left pending.
fn a_deed_among_many() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => a_deed(),
        3 => Just(Deed::SignIn),
        1 => Just(Deed::RevokeOthers),
    ]
}

fn a_move(deed: impl Strategy<Value = Deed>) -> impl Strategy<Value = Move> {
    let held = || prop::bool::weighted(0.4);
    prop_oneof![
        8 => (deed, 0..64_usize, 0..2_usize, held(), held()).prop_map(
            |(deed, whose, replica, held_before, held_after)| Move::Do { deed, whose, replica, held_before, held_after }
        ),
        4 => (0..64_usize).prop_map(Move::Release),
        1 => (0..2500_u64).prop_map(|ms| Move::Pass { ms }),
    ]
}

#[test]
fn two_sidecars_on_one_redis_agree_with_gotrue_whatever_happens() {
    agree_in_steps_of(256, a_move(a_deed()), cases() / 2);
}

#[test]
fn they_agree_while_changes_to_many_are_pending() {
    let pending = agree_in_steps_of(SMALL_STEP, a_move(a_deed_among_many()), cases().div_ceil(2));
    assert!(pending > 0, "no change was pending");
}

/// How many changes were pending when they were made past the sidecars.
fn agree_in_steps_of(step: u32, a_move: impl Strategy<Value = Move>, cases: u32) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::in_steps_of(step));
    let history = prop::collection::vec(a_move, 1..40);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 50,
        max_shrink_time: 90_000, // ms; each that still fails takes as long as is waited for changes
        ..Config::default()
    });
    let outcome = runner.run(&history, |history| {
        runtime.block_on(async {
            let mut driver = Driver::new(&world);
            for step in &history {
                driver.make(step).await;
            }
            driver.finish().await.map_err(|differences| TestCaseError::fail(differences.join("\n")))
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    world.pending()
}

#[expect(clippy::disallowed_methods, reason = "a test's own knob, as proptest has it")]
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}
