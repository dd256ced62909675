use super::*;
use crate::session::{Aal, Origin, Reason, Record, RefreshRef, SessionId, Which};

const BY: By<'_> = By { route: "/token", request_id: b"r1" };
const NOW: u64 = 1_800_000_000;

fn user(number: u8) -> UserId {
    UserId::parse(&format!("0191d1a0-0000-7000-8000-0000000000{number:02x}")).unwrap()
}

fn session(number: u8) -> SessionId {
    SessionId::parse(&format!("0191d1a0-0000-7000-8000-0000000001{number:02x}")).unwrap()
}

fn record(of: u8, number: u8, later: u64, origin: Origin) -> What {
    let token = |later: u64| RefreshRef::parse(&format!("{later:_>43}"));
    let record = Record {
        refresh_ref: token(later),
        previous_ref: later.checked_sub(1).and_then(token),
        began_ms: if origin == Origin::SignIn { NOW * 1000 } else { 0 },
        begun_by_ms: if origin == Origin::SignIn { 0 } else { NOW * 1000 },
        refreshed_at: NOW + later,
        expires_at: NOW + 3600 + later,
        aal: Some(Aal::Aal1),
        ..Record::bare(user(of), session(number), NOW)
    };
    What::Change(Change::Record { origin, record: Box::new(record), allowed_ms: None })
}

fn sign_in(of: u8, number: u8) -> What {
    record(of, number, 0, Origin::SignIn)
}

fn refresh(of: u8, number: u8, later: u64) -> What {
    record(of, number, later, Origin::Refresh)
}

fn end(of: u8, which: Which) -> What {
    What::Change(Change::End {
        user: user(of),
        which,
        reason: Reason::Logout,
        sent_ms: NOW * 1000 + 60_000,
        expires_at: None,
        ended_in_gotrue: false,
    })
}

fn held(changes: usize) -> Held {
    Held::new(Room { changes, bytes: usize::MAX })
}

fn put(held: &mut Held, all: Vec<What>) -> Vec<QueuedKind> {
    all.into_iter().enumerate().flat_map(|(at, what)| held.put(what, BY, at as u64)).collect()
}

fn kinds(held: &Held, of: u8) -> Vec<QueuedKind> {
    held.of_user(user(of), usize::MAX).iter().map(|queued| queued.kind()).collect()
}

#[test]
fn a_login_and_its_logout_are_the_logout() {
    let mut held = held(10);
    let logout = end(1, Which::One(session(1)));
    put(&mut held, vec![sign_in(1, 1), sign_in(1, 2), refresh(1, 1, 5), logout.clone(), logout]);
    assert_eq!(kinds(&held, 1), [QueuedKind::Creation, QueuedKind::Ending]);
    let left = held.of_user(user(1), usize::MAX);
    let What::Change(Change::End { expires_at, .. }) = &left[1].what else { panic!("{left:?}") };
    // the tombstone outlives the newest token of the session that was never written
    assert_eq!((*expires_at, left[1].since), (Some(NOW + 3605), 0));
}

#[test]
fn whose_logout_leaves_that_they_were_not_banned() {
    let mut held = held(10);
    let What::Change(Change::Record { origin, record, .. }) = sign_in(1, 1) else { panic!() };
    let allowed = |ms| What::Change(Change::Record { origin, record: record.clone(), allowed_ms: Some(ms) });
    put(&mut held, vec![allowed(7), allowed(9), end(1, Which::One(session(1)))]);
    let left = held.of_user(user(1), usize::MAX);
    assert_eq!(left.len(), 2);
    assert_eq!(left[0].what, What::Change(Change::Allowed { user: user(1), allowed_ms: 9 }));
}

#[test]
fn refreshes_of_a_session_are_the_last_unless_something_stands_between() {
    let mut held = held(10);
    put(&mut held, vec![sign_in(1, 1), refresh(1, 1, 1), refresh(1, 2, 1), refresh(1, 1, 2)]);
    assert_eq!(held.len(), 3, "the sign-in, and a refresh of each");
    put(&mut held, vec![end(1, Which::Others(session(9))), refresh(1, 2, 3)]);
    assert_eq!(held.len(), 5);
    // one that comes late is kept as it is: the store knows which is newer
    put(&mut held, vec![refresh(1, 2, 2)]);
    assert_eq!(held.len(), 6);
}

/// Whoever stays signed in may send it as often as they like.
#[test]
fn an_ending_of_many_that_is_made_again_is_one() {
    for which in [Which::All, Which::Others(session(1)), Which::Client("a".to_owned())] {
        let mut held = held(10);
        put(&mut held, vec![end(1, which.clone()); 50]);
        assert_eq!((held.len(), held.oldest()), (1, Some(0)), "{which:?}");
    }
    let mut held = held(10);
    let others = || end(1, Which::Others(session(1)));
    let again = (1..50).flat_map(|later| [others(), refresh(1, 1, later)]);
    put(&mut held, again.collect());
    assert_eq!(
        kinds(&held, 1),
        [QueuedKind::Ending, QueuedKind::Creation],
        "of the one who stays nothing ends"
    );
    put(&mut held, vec![sign_in(1, 2), others(), end(1, Which::Others(session(2)))]);
    assert_eq!(held.len(), 5, "somebody came in between, and another one stays");
}

#[test]
fn nobody_fills_it_alone() {
    let mut held = held(1000);
    put(&mut held, vec![sign_in(2, 2), end(2, Which::All)]);
    let client = |number: u32| end(1, Which::Client(number.to_string()));
    let lost = put(&mut held, [sign_in(1, 1)].into_iter().chain((0..150).map(client)).collect());
    assert_eq!(lost.len(), 51, "more than a tenth is one's own");
    assert_eq!((lost[0], lost[1]), (QueuedKind::Creation, QueuedKind::Ending));
    assert_eq!((kinds(&held, 1).len(), kinds(&held, 2).len()), (100, 2));
    assert_eq!(held.len(), 102);
}

#[test]
fn of_several_that_became_one_the_first_says_since_when_they_wait() {
    let mut held = held(10);
    put(&mut held, vec![refresh(1, 1, 1), sign_in(2, 2), refresh(1, 1, 2)]);
    assert_eq!(held.oldest(), Some(0));
    assert!(held.take(&held.of_user(user(1), 1)[0]));
    assert_eq!(held.oldest(), Some(1));
}

#[test]
fn users_have_their_turn_by_their_oldest_change() {
    let mut held = held(10);
    put(&mut held, vec![sign_in(2, 1), sign_in(1, 2), sign_in(2, 3)]);
    assert_eq!(held.next_user(0), Some(user(2)));
    assert_eq!(held.next_user(1), Some(user(1)));
    assert_eq!(held.next_user(2), None, "the third is not the first of its user");
    let first = &held.of_user(user(2), 1)[0];
    assert!(held.take(first) && !held.take(first));
    assert_eq!((held.next_user(0), held.next_user(2)), (Some(user(1)), Some(user(2))));
    assert_eq!(held.oldest(), Some(1));
}

#[test]
fn endings_are_lost_last_and_the_newest_of_them() {
    let mut held = held(3);
    let lost = put(&mut held, vec![end(1, Which::All), sign_in(2, 1), end(3, Which::All), sign_in(4, 2)]);
    assert_eq!(lost, [QueuedKind::Creation]);
    assert!(kinds(&held, 2).is_empty() && !kinds(&held, 4).is_empty(), "the oldest");
    let suspend = Change::Suspend { user: user(5), until: None, decided_ms: 1 };
    assert_eq!(put(&mut held, vec![What::Change(suspend)]), [QueuedKind::Creation]);
    assert_eq!(put(&mut held, vec![end(6, Which::All)]), [QueuedKind::Other]);
    assert_eq!(put(&mut held, vec![end(7, Which::All)]), [QueuedKind::Ending]);
    assert!(kinds(&held, 7).is_empty() && !kinds(&held, 1).is_empty());
    assert_eq!(put(&mut held, vec![sign_in(8, 3)]), [QueuedKind::Creation]);
    assert_eq!((held.counts_after(0), held.counts_after(u64::MAX - 1)), ([0, 0, 0, 3], [0; 4]));
}

#[test]
fn a_file_hears_of_what_outlives_its_writing_only() {
    let mut held = held(10);
    put(&mut held, vec![sign_in(1, 1), sign_in(1, 2)]);
    let (gone, fresh) = held.unspooled();
    assert_eq!((gone.len(), fresh.len(), held.is_spooled()), (0, 2, true));
    put(&mut held, vec![sign_in(1, 3)]);
    for queued in held.all() {
        held.take(&queued);
    }
    assert!(!held.is_spooled());
    let (gone, fresh) = held.unspooled();
    assert_eq!((gone, fresh.len(), held.is_spooled()), (vec![1, 2], 0, true));
}

fn told(token: char, fate: Fate, sent_ms: u64) -> What {
    let reference = RefreshRef::parse(&token.to_string().repeat(43)).unwrap();
    What::ByRef(ByRef { reference, fate, sent_ms })
}

/// Anybody can send refresh tokens that GoTrue does not know.
#[test]
fn what_anybody_can_make_up_pushes_out_nothing_else() {
    let made_up = |token| told(token, Fate::Ended(Reason::UnknownToGotrue), 1);
    let mut held = held(3);
    put(&mut held, vec![end(1, Which::All), sign_in(2, 1), made_up('a')]);
    let lost = put(&mut held, ('b'..='z').map(made_up).collect());
    assert!(lost.iter().all(|kind| *kind == QueuedKind::Unproven), "{lost:?}");
    assert_eq!((kinds(&held, 1).len(), kinds(&held, 2).len()), (1, 1));
    // one that was used twice is GoTrue's own: it knew the session
    assert_eq!(put(&mut held, vec![told('a', Fate::Ended(Reason::RefreshReuse), 1)]), [QueuedKind::Unproven]);
    assert_eq!(put(&mut held, vec![end(3, Which::All)]), [QueuedKind::Creation]);
}

#[test]
fn what_is_told_again_and_again_takes_the_room_of_once() {
    let mut held = held(10);
    let banned = |until, seen_ms| What::Change(Change::Banned { user: user(1), until, seen_ms });
    put(&mut held, vec![banned(20, 8), end(1, Which::All), banned(10, 9), banned(10, 7)]);
    let left = held.of_user(user(1), usize::MAX);
    let left: Vec<_> = left.iter().map(|queued| (queued.what.clone(), queued.since)).collect();
    assert_eq!(left, [(end(1, Which::All), 1), (banned(20, 9), 0)]);
    // who signed in meanwhile was not banned then
    put(&mut held, vec![sign_in(1, 1), banned(30, 10)]);
    assert_eq!(held.len(), 4);

    let mut held = self::held(10);
    let ended = |token| told(token, Fate::Ended(Reason::UnknownToGotrue), 5);
    put(&mut held, vec![told('a', Fate::Banned(20), 8), ended('a'), ended('b'), ended('a')]);
    put(&mut held, vec![told('a', Fate::Banned(10), 9)]);
    let left: Vec<_> = held.all().iter().map(|queued| queued.what.clone()).collect();
    assert_eq!(left, [ended('b'), ended('a'), told('a', Fate::Banned(20), 9)]);
    let first = held.next_unresolved(0).unwrap();
    let second = held.next_unresolved(first.id).unwrap();
    assert_eq!([&first.what, &second.what], [&ended('b'), &ended('a')]);
}

#[test]
fn bytes_are_bounded_and_given_back() {
    let mut held = Held::new(Room { changes: usize::MAX, bytes: 10 * ENTRY_BYTES });
    let lost = put(&mut held, (0..20).map(|number| sign_in(1, number)).collect());
    assert_eq!((held.len(), lost.len()), (9, 11), "a request's id takes room as well");
    for queued in held.of_user(user(1), usize::MAX) {
        held.take(&queued);
    }
    assert_eq!((held.len(), held.bytes(), held.lists.len()), (0, 0, 0));
}

#[test]
fn the_last_record_that_names_a_token_says_what_it_is_worth() {
    let mut held = held(10);
    // in seconds of their own, so that they stay two
    put(&mut held, vec![sign_in(1, 1), refresh(1, 1, 1)]);
    for (token, reason, found) in [
        (0, Reason::UnknownToGotrue, false),
        (0, Reason::RefreshReuse, true),
        (1, Reason::UnknownToGotrue, true),
        (2, Reason::RefreshReuse, false),
    ] {
        let reference = RefreshRef::parse(&format!("{token:_>43}")).unwrap();
        let by_ref = ByRef { reference, fate: Fate::Ended(reason), sent_ms: 1 };
        assert_eq!(held.holder(&by_ref), found.then_some((user(1), session(1))), "{token} {reason:?}");
    }
}
