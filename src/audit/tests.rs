use super::*;
use crate::{
    config::LogFormat,
    session::{FactorId, Record},
    telemetry::captured,
};

const BY: By<'_> = By { route: "/logout", request_id: b"r\"1" };

fn user() -> UserId {
    UserId::parse("0191d1a0-0000-7000-8000-00000000000a").unwrap()
}

fn session() -> SessionId {
    SessionId::parse("0191d1a0-0000-7000-8000-000000000001").unwrap()
}

fn ending(which: Which) -> Change {
    Change::End {
        user: user(),
        which,
        reason: Reason::Logout,
        sent_ms: 1,
        expires_at: None,
        ended_in_gotrue: true,
    }
}

fn record(origin: Origin) -> Change {
    Change::Record {
        origin,
        record: Box::new(Record { expires_at: 2, ..Record::bare(user(), session(), 1) }),
        allowed_ms: None,
    }
}

/// What one call logs, after the time.
fn logged(audit: impl FnOnce()) -> String {
    let log = captured(LogFormat::Text, audit);
    log.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned())
}

#[test]
fn an_ending_says_who_which_why_and_how_many() {
    let table = [
        (Which::One(session()), "which=one session=0191d1a0-0000-7000-8000-000000000001"),
        (Which::Others(session()), "which=others kept=0191d1a0-0000-7000-8000-000000000001"),
        (Which::All, "which=all"),
        (Which::Aal1Except(session()), "which=aal1 kept=0191d1a0-0000-7000-8000-000000000001"),
        (Which::Client("a b\n".to_owned()), "which=client client_id=\"a b\\n\""),
    ];
    for (which, words) in table {
        let line = logged(|| changed(&ending(which), &Outcome::Ended(3), BY));
        assert_eq!(
            line,
            format!(
                "info audit: sessions ended user=0191d1a0-0000-7000-8000-00000000000a {words} \
                 reason=logout result=ended count=3 route=/logout request_id=\"r\\\"1\"\n"
            )
        );
    }
}

#[test]
fn a_revocation_says_who_wanted_it_and_what_became_of_it() {
    let by = By { route: "/sessions/{id}", request_id: b"r1" };
    let failed = std::io::Error::other("the store did not answer in time");
    let one = ending(Which::Live(session()));
    let table = [
        (
            Ok(Outcome::Ended(1)),
            Actor::User(Some(session())),
            "result=ended count=1 actor=user actor_session=0191d1a0-0000-7000-8000-000000000001",
        ),
        (Ok(Outcome::Ended(0)), Actor::User(None), "result=not_found count=0 actor=user"),
        (
            Err(failed),
            Actor::Admin("service_role", Some(user())),
            "result=failed count=0 error=\"the store did not answer in time\" actor=admin \
             actor_role=service_role actor_user=0191d1a0-0000-7000-8000-00000000000a",
        ),
        (Ok(Outcome::Ended(1)), Actor::Operator(0), "result=ended count=1 actor=operator actor_uid=0"),
    ];
    for (outcome, actor, words) in table {
        assert_eq!(
            logged(|| revocation(&one, &outcome, actor, by)),
            format!(
                "info audit: revocation user=0191d1a0-0000-7000-8000-00000000000a which=one \
                 session=0191d1a0-0000-7000-8000-000000000001 reason=logout {words} route=/sessions/{{id}} \
                 request_id=r1\n"
            )
        );
    }
    let none: Result<_, std::io::Error> = Ok(Outcome::Ended(0));
    let all = logged(|| revocation(&ending(Which::All), &none, Actor::Operator(7), by));
    assert!(all.contains("which=all reason=logout result=ended count=0"), "{all}");
}

#[test]
fn what_an_ending_left_out_is_told_when_it_is_done() {
    let line = logged(|| changed(&ending(Which::All), &Outcome::Pending(256), BY));
    assert!(line.contains("which=all reason=logout result=pending count=256"), "{line}");
    assert_eq!(
        logged(|| swept(user(), Reason::Logout, 744)),
        "info audit: pending sessions ended user=0191d1a0-0000-7000-8000-00000000000a \
         reason=logout result=ended count=744\n"
    );
}

#[test]
fn whoever_made_room_has_a_line_each() {
    let other = SessionId::parse("0191d1a0-0000-7000-8000-000000000002").unwrap();
    let recorded = Box::new(Outcome::Created);
    let outcome = Outcome::Evicted(Evicted { recorded, sessions: vec![session(), other], more: true });
    let lines = captured(LogFormat::Text, || changed(&record(Origin::SignIn), &outcome, BY));
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for (line, session) in lines.lines().zip([session(), other]) {
        let words = format!("which=one session={session} reason=evicted result=ended count=1");
        assert!(line.contains(&words), "{line}");
    }
}

#[test]
fn of_changes_only_endings_and_suspensions_are_audited() {
    let ban = |until| Change::Suspend { user: user(), until, decided_ms: 1 };
    let lower = {
        let factor = FactorId::parse_as_gotrue("0191d1a0-0000-7000-8000-0000000000f1").unwrap();
        Change::LowerAal { user: user(), factor }
    };
    let table = [
        (record(Origin::SignIn), Outcome::Created, ""),
        (record(Origin::Refresh), Outcome::Refreshed, ""),
        (record(Origin::Refresh), Outcome::Unchanged, ""),
        (record(Origin::Refresh), Outcome::Revoked, ""),
        (record(Origin::SignIn), Outcome::Revoked, "info audit: a revoked session was not recorded"),
        (record(Origin::HeldSignIn), Outcome::Revoked, "info audit: a revoked session was not recorded"),
        (record(Origin::HeldSignIn), Outcome::Denied, "info audit: a sign-in was denied"),
        (ban(Some(7)), Outcome::Marked, "info audit: user suspended"),
        (
            Change::Banned { user: user(), until: 7, seen_ms: 1 },
            Outcome::Unchanged,
            "info audit: user suspended",
        ),
        (ban(None), Outcome::Marked, "info audit: suspension lifted"),
        (ending(Which::All), Outcome::Unchanged, "info audit: sessions ended"),
        (lower, Outcome::Marked, ""),
    ];
    for (change, outcome, words) in table {
        let line = logged(|| changed(&change, &outcome, BY));
        let begins = if words.is_empty() { line.is_empty() } else { line.starts_with(words) };
        assert!(begins, "{outcome:?}: {line}");
    }
}

#[test]
fn a_change_that_failed_names_the_cause() {
    let cause = std::io::Error::other("the store did not answer in time");
    let line = logged(|| failed(&record(Origin::SignIn), &cause, BY));
    assert!(line.starts_with("warn audit: a change was not recorded event="), "{line}");
    assert!(
        line.contains(
            "user=0191d1a0-0000-7000-8000-00000000000a which=one \
             session=0191d1a0-0000-7000-8000-000000000001 result=failed \
             error=\"the store did not answer in time\""
        ),
        "{line}"
    );
    let line = logged(|| unrecorded(Unrecorded::TooLarge, BY));
    assert!(line.contains("reason=too_large result=failed"), "{line}");
}

#[test]
fn a_refusal_names_nobody_whom_no_key_proved() {
    let line = logged(|| refused(&Verdict::Bad, Refusal::SessionRevoked, BY));
    assert_eq!(
        line,
        "info audit: a request was refused reason=session_revoked result=refused \
         route=/logout request_id=\"r\\\"1\"\n"
    );
}

#[test]
fn a_refused_refresh_names_its_session() {
    let line = logged(|| refused_refresh(user(), session(), Refusal::RefreshRevoked, BY));
    assert!(
        line.starts_with(
            "info audit: a refresh of a revoked session was refused \
             user=0191d1a0-0000-7000-8000-00000000000a session=0191d1a0-0000-7000-8000-000000000001 \
             reason=refresh_revoked result=refused"
        ),
        "{line}"
    );
    let line = logged(|| refused_refresh(user(), session(), Refusal::RefreshExpired, BY));
    assert!(line.starts_with("info audit: a refresh of an expired session was refused user="), "{line}");
}

#[test]
fn ids_from_outside_are_cut() {
    let by = By { route: "other", request_id: &[b'x'; 4_000] };
    let change = ending(Which::Client("y".repeat(4_000)));
    let line = logged(|| changed(&change, &Outcome::Ended(0), by));
    assert!(line.len() < 600, "{line}");
}
