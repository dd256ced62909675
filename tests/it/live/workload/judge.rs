//! Compares the store with `auth.sessions`, and knows what may differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use gotrue_sidecar::session::{SessionId, UserId};
use redis::aio::MultiplexedConnection;
use serde_json::json;

use super::{
    device::refresh,
    world::{Ledger, Span, World, now},
};
use crate::support::{
    gotrue::Row,
    pod::{Stored, stored, suspended},
};

/// Why a difference is none of the mirror's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// `/otp` for a new address makes a session whose tokens nobody gets (GS §1.4): missing in the store.
    Ghost,
    /// A logout that GoTrue refused, a banned user's, ended its own session here (§6.1): missing.
    EndedHereOnly,
    /// A sign-in and an ending of the same user were under way at once; GoTrue's next 403 tells who was
    /// first (§6.1): too much in the store until then.
    SignInCrossedEnding,
    /// GoTrue said that it failed, and had done what was asked (GS §1.4): a session that nobody has tokens of
    /// is missing, or one that ended is still here until the next 403.
    GotrueFailed,
    /// Two decisions on the same user's ban were under way at once: that of the later answer counts until
    /// the user is refused or gets tokens.
    BansCrossed,
    /// Two requests that change assurance levels of the same user were under way at once: the level is that
    /// of the last answer until the next refresh.
    AssuranceCrossed,
}

/// A difference that nothing excuses.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
enum Wrong {
    Missing(Row),
    Surplus(Stored),
    Assurance { row: Row, stored: Stored },
    Ban { user: UserId, stored: bool },
}

/// What happens beside an answer has this long.
const PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(50);

/// Panics over differences that do not go away and that no rule names.
pub(super) async fn compare(world: &World, redis: &mut MultiplexedConnection) {
    let began = Instant::now();
    loop {
        let (stored, rows) = (stored(redis).await, world.gotrue.rows().await);
        let mut excused = BTreeMap::new();
        let mut wrong = differences(&world.ledger(), &rows, &stored, &mut excused);
        wrong.extend(bans(world, redis, &mut excused).await);
        for (session, rule) in &excused {
            world.ledger().excused(*session, *rule);
            repair(world, *session, *rule).await;
        }
        let here: BTreeSet<_> = stored.iter().map(|stored| stored.session).collect();
        let in_repair = |(session, rule): (&SessionId, &Rule)| rule.is_repaired() && here.contains(session);
        if wrong.is_empty() && !excused.iter().any(in_repair) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the store is not auth.sessions: {wrong:#?} {excused:?}");
        tokio::time::sleep(BETWEEN).await;
    }
    let mut ledger = world.ledger();
    ledger.endings.clear();
    ledger.movings.clear();
    ledger.bans.clear();
}

impl Rule {
    /// The next request of whoever has the session tells the truth.
    fn is_repaired(self) -> bool {
        matches!(
            self,
            Self::SignInCrossedEnding | Self::AssuranceCrossed | Self::GotrueFailed | Self::BansCrossed
        )
    }
}

/// Makes the request that tells.
async fn repair(world: &World, session: SessionId, rule: Rule) {
    let Some(latest) = world.ledger().known.get(&session).map(|known| known.latest.clone()) else { return };
    if rule == Rule::AssuranceCrossed {
        // Who is banned gets no token that could tell.
        world.admin.update(latest.user, &json!({"ban_duration": "none"})).await;
    }
    match rule {
        Rule::SignInCrossedEnding | Rule::GotrueFailed => drop(world.first_door().user(&latest).await),
        Rule::AssuranceCrossed | Rule::BansCrossed => {
            drop(refresh(world, world.first_door(), &latest).await);
        }
        Rule::Ghost | Rule::EndedHereOnly => {}
    }
}

/// Who is banned there and here; each user is told by one of the sessions.
async fn bans(
    world: &World,
    redis: &mut MultiplexedConnection,
    excused: &mut BTreeMap<SessionId, Rule>,
) -> Vec<Wrong> {
    // A ban is known to the second, and holds through it.
    let here = suspended(redis, now() / 1000 + 1).await;
    let there = world.gotrue.bans();
    let ledger = world.ledger();
    let mut wrong = Vec::new();
    for (user, banned) in there {
        if here.contains(&user) == banned {
            continue;
        }
        let session = ledger.known.iter().find(|(_, known)| known.latest.user == user).map(|(id, _)| *id);
        match session {
            // Nobody has a token that could tell.
            None => {}
            Some(session) if ledger.failed.contains(&user) || !crossing(&ledger.bans, user).is_empty() => {
                excused.insert(session, Rule::BansCrossed);
            }
            Some(_) => wrong.push(Wrong::Ban { user, stored: !banned }),
        }
    }
    wrong
}

fn differences(
    ledger: &Ledger,
    rows: &[Row],
    stored: &[Stored],
    excused: &mut BTreeMap<SessionId, Rule>,
) -> Vec<Wrong> {
    let here: BTreeMap<_, _> = stored.iter().map(|stored| (stored.session, stored)).collect();
    let there: BTreeSet<_> = rows.iter().map(|row| (row.session, row.user)).collect();
    let mut wrong = Vec::new();
    for row in rows {
        let Some(stored) = here.get(&row.session) else {
            match missing(ledger, row) {
                Some(rule) => drop(excused.insert(row.session, rule)),
                None => wrong.push(Wrong::Missing(row.clone())),
            }
            continue;
        };
        if stored.fields.get("aal").is_some_and(|aal| *aal != row.aal) {
            if crossing(&ledger.movings, row.user).is_empty() {
                wrong.push(Wrong::Assurance { row: row.clone(), stored: (*stored).clone() });
            } else {
                excused.insert(row.session, Rule::AssuranceCrossed);
            }
        }
    }
    for stored in stored.iter().filter(|stored| !there.contains(&(stored.session, stored.user))) {
        if crossed_ending(ledger, stored) {
            excused.insert(stored.session, Rule::SignInCrossedEnding);
        } else if ledger.failed.contains(&stored.user) {
            excused.insert(stored.session, Rule::GotrueFailed);
        } else {
            wrong.push(Wrong::Surplus(stored.clone()));
        }
    }
    wrong
}

fn missing(ledger: &Ledger, row: &Row) -> Option<Rule> {
    if ledger.ended_here_only.contains(&row.session) {
        return Some(Rule::EndedHereOnly);
    }
    if ledger.known.contains_key(&row.session) {
        return None;
    }
    if row.email.starts_with("ghost-") {
        return Some(Rule::Ghost);
    }
    ledger.failed.contains(&row.user).then_some(Rule::GotrueFailed)
}

fn crossed_ending(ledger: &Ledger, stored: &Stored) -> bool {
    let Some(known) = ledger.known.get(&stored.session) else { return false };
    let of_user = ledger.endings.iter().filter(|(user, _)| *user == stored.user);
    of_user.into_iter().any(|(_, ending)| known.began.crosses(*ending))
}

/// Those of a user that were under way at once.
fn crossing(spans: &[(UserId, Span)], user: UserId) -> Vec<Span> {
    let of_user: Vec<_> = spans.iter().filter(|(of, _)| *of == user).map(|(_, span)| *span).collect();
    let crosses = |(at, span): &(usize, &Span)| {
        of_user.iter().enumerate().any(|(other, with)| other != *at && span.crosses(*with))
    };
    of_user.iter().enumerate().filter(crosses).map(|(_, span)| *span).collect()
}
