//! Drives clients through two sidecars, holds requests and answers, and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use gotrue_sidecar::{
    session::{Change, Reason, SessionId, Sought, State, UserId, Which},
    token::{RefKey, RefreshToken},
};
use http::{Method, Request};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{
    Deed, Move,
    gotrue::Gotrue,
    world::{Way, World},
};
use crate::support::{
    http::{Answer, send},
    signer::{Login, SECRET},
};

/// Changes that nobody waits for are made within so long; failing histories are made small at this pace.
const SOON: Duration = Duration::from_secs(10);

/// So many users share a history.
const USERS: usize = 2;

/// A request that is under way.
struct Underway {
    deed: Deed,
    user: UserId,
    way: Way,
    held_before: bool,
    held_after: bool,
    /// A sign-in beside which something was ended.
    loose: bool,
    answer: JoinHandle<Answer>,
}

/// One history.
pub(super) struct Driver<'a> {
    world: &'a World,
    users: Vec<UserId>,
    /// The newest tokens that clients have.
    clients: BTreeMap<SessionId, Login>,
    underway: Vec<Underway>,
    /// May be taken for live though GoTrue has ended them.
    loose: BTreeSet<SessionId>,
    /// May have ended here though GoTrue has not ended them.
    ended_here: BTreeSet<SessionId>,
    revoked: BTreeSet<SessionId>,
    requests: usize,
}

impl<'a> Driver<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        world.pass(5000);
        world.gotrue.clear();
        world.ways.lock().unwrap().clear();
        Self {
            world,
            users: (0..USERS).map(|_| Login::new(0).user).collect(),
            clients: BTreeMap::new(),
            underway: Vec::new(),
            loose: BTreeSet::new(),
            ended_here: BTreeSet::new(),
            revoked: BTreeSet::new(),
            requests: 0,
        }
    }

    pub(super) async fn make(&mut self, step: &Move) {
        match *step {
            Move::Do { deed, whose, replica, held_before, held_after } => {
                self.begin(deed, whose, replica, held_before, held_after).await;
            }
            Move::Release(which) if !self.underway.is_empty() => {
                self.release(which % self.underway.len()).await;
            }
            Move::Release(_) => {}
            Move::Pass { ms } => self.world.pass(ms),
        }
        self.what_was_revoked_stays_revoked().await;
    }

    async fn begin(&mut self, deed: Deed, whose: usize, replica: usize, held_before: bool, held_after: bool) {
        self.world.pass(5);
        let user = self.users[whose % self.users.len()];
        let login = self.clients.values().nth(whose % self.clients.len().max(1)).cloned();
        let (user, request) = match (deed, login) {
            (Deed::SignIn, _) => {
                (user, post("/token?grant_type=password", &format!(r#"{{"user":"{user}"}}"#)))
            }
            (Deed::AdminPassword | Deed::AdminDelete | Deed::Ban | Deed::Unban, _) => {
                (user, by_admin(deed, user))
            }
            (_, None) => return,
            (Deed::Revoke, Some(login)) => return self.revoke(&login, Which::One(login.session)).await,
            (Deed::RevokeOthers, Some(login)) => {
                return self.revoke(&login, Which::Others(login.session)).await;
            }
            (_, Some(login)) => (login.user, self.by_client(deed, &login)),
        };
        // an admin waits for an answer before changing a ban again
        let is_ban = matches!(deed, Deed::Ban | Deed::Unban);
        let (held_before, held_after) = (held_before && !is_ban, held_after && !is_ban);
        let same_user = || self.underway.iter().filter(|other| other.user == user);
        if deed == Deed::VerifyFactor && same_user().any(|other| other.deed == Deed::VerifyFactor) {
            return;
        }
        let loose = deed == Deed::SignIn && same_user().any(|other| other.deed.ends_others());
        if deed.ends_others() {
            let sign_ins =
                self.underway.iter_mut().filter(|other| other.user == user && other.deed == Deed::SignIn);
            sign_ins.for_each(|sign_in| sign_in.loose = true);
        }
        let (way, answer) = self.send(replica, request);
        way.arrived.opened().await;
        self.underway.push(Underway { deed, user, way, held_before, held_after, loose, answer });
        self.go_on(self.underway.len() - 1).await;
    }

    /// Lets a request go to where it is held.
    async fn go_on(&mut self, index: usize) {
        let one = &self.underway[index];
        if one.held_before {
            return;
        }
        one.way.before.open();
        one.way.committed.opened().await;
        if one.held_after {
            return;
        }
        one.way.after.open();
        let one = self.underway.remove(index);
        let answer = one.answer.await.unwrap();
        self.delivered(one.deed, one.loose, &answer);
    }

    async fn release(&mut self, index: usize) {
        self.world.pass(5);
        let one = &mut self.underway[index];
        if one.held_before {
            one.held_before = false;
        } else {
            one.held_after = false;
        }
        self.go_on(index).await;
    }

    /// The client takes the tokens that it got.
    fn delivered(&mut self, deed: Deed, loose: bool, answer: &Answer) {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(access) = body["access_token"].as_str() else { return };
        let login = Gotrue::login_of(access, body["refresh_token"].as_str().unwrap());
        if deed == Deed::SignIn && loose {
            self.loose.insert(login.session);
        }
        let known = self.clients.entry(login.session).or_insert_with(|| login.clone());
        if login.counter >= known.counter {
            *known = login;
        }
    }

    fn send(&mut self, replica: usize, mut request: Request<String>) -> (Way, JoinHandle<Answer>) {
        self.requests += 1;
        let id = format!("{}-{}", self.users[0], self.requests);
        let way = Way::default();
        self.world.ways.lock().unwrap().insert(id.clone(), way.clone());
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        let uri = format!("{}{}", self.world.sidecars[replica].url, request.uri());
        *request.uri_mut() = uri.parse().unwrap();
        (way, tokio::spawn(async move { send(request).await.unwrap() }))
    }

    fn by_client(&mut self, deed: Deed, login: &Login) -> Request<String> {
        let again = Login { counter: login.counter.saturating_sub(1), ..login.clone() };
        let (method, target, body) = match deed {
            Deed::Refresh => return refresh(login),
            Deed::RefreshAgain => return refresh(&again),
            Deed::Logout => (Method::POST, "/logout", ""),
            Deed::LogoutLocal => (Method::POST, "/logout?scope=local", ""),
            Deed::LogoutOthers => (Method::POST, "/logout?scope=others", ""),
            Deed::ChangePassword => (Method::PUT, "/user", r#"{"password":"new"}"#),
            Deed::VerifyFactor => {
                (Method::POST, "/factors/5e551040-0000-4000-8000-00000000000f/verify", "{}")
            }
            _ => (Method::GET, "/user", ""),
        };
        if matches!(deed, Deed::Logout | Deed::LogoutLocal) {
            self.ended_here.insert(login.session); // whatever GoTrue says
        }
        let bearer = format!("Bearer {}", login.access(&self.world.signer));
        let request = Request::builder().method(method).uri(target).header("authorization", bearer);
        request.body(body.to_owned()).unwrap()
    }

    /// This session of the client's, or all its user's but this one.
    async fn revoke(&mut self, login: &Login, which: Which) {
        let others = matches!(which, Which::Others(_));
        let is_meant = |it: &Login| it.user == login.user && (it.session != login.session) == others;
        let rows = self.world.gotrue.sessions().into_iter();
        self.ended_here.extend(rows.filter(|(_, row)| is_meant(row)).map(|(session, _)| session));
        let mut live = Vec::new();
        for client in self.clients.values().filter(|client| is_meant(client)) {
            if let State::Live(record) = self.state(client.user, client.session).await {
                live.push(record);
            }
        }
        let change = Change::End {
            user: login.user,
            which,
            reason: Reason::Revoked,
            sent_ms: self.world.clock.millis(),
            expires_at: None,
            ended_in_gotrue: false,
        };
        let outcome = self.world.store.apply_one(&change, self.world.clock.seconds()).await.unwrap();
        for record in live {
            let state = self.state(record.user, record.session).await;
            assert_eq!(state, State::Revoked, "after {change:?}: {outcome:?}");
        }
        self.world.note(&outcome);
    }

    async fn state(&self, user: UserId, session: SessionId) -> State {
        self.world.store.lookup(&Sought::of(user, session), self.world.clock.seconds()).await.unwrap()
    }

    /// I3, at every step.
    async fn what_was_revoked_stays_revoked(&mut self) {
        for login in self.clients.values() {
            let revoked = self.state(login.user, login.session).await == State::Revoked;
            assert!(revoked || !self.revoked.contains(&login.session), "{login:?} came back");
            if revoked {
                self.revoked.insert(login.session);
            }
        }
    }

    /// Everything is delivered; store and GoTrue are compared as they are, and once more when every
    /// client has used its tokens.
    ///
    /// # Errors
    /// What differs.
    pub(super) async fn finish(mut self) -> Result<(), Vec<String>> {
        while !self.underway.is_empty() {
            self.release(0).await;
        }
        let known = self.bans().await;
        for user in self.users.clone() {
            self.now(0, by_admin(Deed::Unban, user)).await;
        }
        known?;
        self.settled(true).await?;
        for (number, login) in self.clients.values().cloned().collect::<Vec<_>>().iter().enumerate() {
            let asked = self.by_client(Deed::GetUser, login);
            self.now(number % 2, asked).await;
            self.now(number % 2, refresh(login)).await;
        }
        self.what_was_revoked_stays_revoked().await;
        self.settled(false).await
    }

    /// Whoever is banned is suspended here, and nobody else. Refusals that nobody waits for say nothing more:
    /// every ban came through a sidecar.
    async fn bans(&self) -> Result<(), Vec<String>> {
        for user in &self.users {
            let banned = self.world.gotrue.bans(*user);
            let nobodys = Login::of(*user, 0).session;
            let suspended = matches!(self.state(*user, nobodys).await, State::Suspended(_));
            if banned != suspended {
                return Err(vec![format!("{user}: banned {banned}, suspended {suspended}")]);
            }
        }
        Ok(())
    }

    /// Waits for changes that nobody waits for.
    async fn settled(&self, settling: bool) -> Result<(), Vec<String>> {
        let began = Instant::now();
        loop {
            let differences = self.differences(settling).await;
            if differences.is_empty() {
                return Ok(());
            }
            if began.elapsed() > SOON {
                return Err(differences);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn now(&mut self, replica: usize, request: Request<String>) -> Answer {
        self.world.pass(5);
        let (way, answer) = self.send(replica, request);
        way.before.open();
        way.after.open();
        answer.await.unwrap()
    }

    /// What of the store is not as GoTrue has it; while clients have not used their tokens since, without
    /// what the contract allows for so long.
    async fn differences(&self, settling: bool) -> Vec<String> {
        let rows = self.world.gotrue.sessions();
        let mut differences = Vec::new();
        for (session, login) in &self.clients {
            let state = self.state(login.user, *session).await;
            let live = matches!(state, State::Live(_));
            match (rows.get(session), state) {
                (Some(row), State::Live(record)) => {
                    let same = record.counter == Some(row.counter)
                        && record.refresh_ref.as_ref() == Some(&reference(row))
                        && record.aal.is_some_and(|aal| aal.as_str() == row.aal)
                        && record.refreshed_at == row.issued
                        && record.created_at >= row.began; // when its answer came
                    if !same {
                        differences.push(format!("{record:?} should be {row:?}"));
                    }
                }
                (Some(row), state) if !(settling && self.ended_here.contains(session)) => {
                    differences.push(format!("{row:?} is {state:?}"));
                }
                (None, _) if live && !(settling && self.loose.contains(session)) => {
                    differences.push(format!("{login:?} is live"));
                }
                _ => {}
            }
        }
        differences
    }
}

fn reference(login: &Login) -> gotrue_sidecar::session::RefreshRef {
    RefKey::derived(SECRET.as_bytes()).reference(&RefreshToken::new(login.refresh()))
}

fn post(target: &str, body: &str) -> Request<String> {
    Request::post(target).body(body.to_owned()).unwrap()
}

fn refresh(login: &Login) -> Request<String> {
    post("/token?grant_type=refresh_token", &format!(r#"{{"refresh_token":"{}"}}"#, login.refresh()))
}

fn by_admin(deed: Deed, user: UserId) -> Request<String> {
    let (method, body) = match deed {
        Deed::AdminDelete => (Method::DELETE, ""),
        Deed::AdminPassword => (Method::PUT, r#"{"password":"new"}"#),
        Deed::Ban => (Method::PUT, r#"{"ban_duration":"1000s"}"#),
        _ => (Method::PUT, r#"{"ban_duration":"none"}"#),
    };
    Request::builder().method(method).uri(format!("/admin/users/{user}")).body(body.to_owned()).unwrap()
}
