//! One device: holds the tokens of at most one session and does one thing after another.

use std::sync::{Arc, atomic::Ordering};

use http::StatusCode;
use serde_json::json;

use super::{
    operation::Operation as Op,
    world::{Person, Span, World, now},
};
use crate::support::{
    client::{Client, Tokens, admin::signed, new_email},
    dice::Dice,
    http::Answer,
};

/// So many factors of a person at most.
const FACTORS: usize = 2;
/// So many earlier tokens are kept for later mischief.
const REMEMBERED: usize = 6;

/// Its state between two operations.
pub(super) struct Device {
    person: Arc<Person>,
    dice: Dice,
    tokens: Option<Tokens>,
    old: Vec<Tokens>,
}

impl Device {
    pub(super) fn new(person: Arc<Person>, dice: Dice) -> Self {
        Self { person, dice, tokens: None, old: Vec::new() }
    }

    /// Signs in where it must, then does anything.
    pub(super) async fn do_something(&mut self, world: &World) {
        let mut operation = Op::choose(&mut self.dice, world.kind());
        if self.tokens.is_none() && needs_tokens(operation) {
            operation = Op::SignIn;
        }
        let client = world.door(&mut self.dice).clone();
        let sent = now();
        let answer = match operation {
            Op::SignIn
            | Op::FollowLink
            | Op::UseLink
            | Op::UseCode
            | Op::TradeCode
            | Op::BecomeSomebodyNew
            | Op::BecomePermanent => self.sign_in(operation, world, &client).await,
            Op::AskForLinkAsStranger => Some(client.otp(&format!("ghost-{}", new_email())).await),
            Op::Forget => {
                self.forget();
                None
            }
            Op::AdminBans
            | Op::AdminBansBriefly
            | Op::AdminLiftsBan
            | Op::AdminSetsPassword
            | Op::AdminRemovesFactor
            | Op::AdminDeletes
            | Op::AdminDeletesSoftly => self.as_admin(operation, world).await,
            _ => self.with_tokens(operation, world, &client).await,
        };
        let Some(answer) = answer else { return };
        self.account(operation, world, &answer, sent);
    }

    /// Takes the answer to the books, and the tokens it may have.
    fn account(&mut self, operation: Op, world: &World, answer: &Answer, sent: u64) {
        let (mut ledger, span) = (world.ledger(), Span { sent, answered: now() });
        ledger.answered(operation, self.person.user, answer);
        if operation.may_end_sessions() {
            ledger.endings.push((self.person.user, span));
        }
        if operation.moves_assurance() {
            ledger.movings.push((self.person.user, span));
        }
        if operation.moves_bans() {
            ledger.bans.push((self.person.user, span));
        }
        // Most devices, but not all, understand when they are told that their session is gone.
        let gone = ["session_not_found", "refresh_token_not_found", "user_not_found"];
        if answer.error_code().is_some_and(|code| gone.contains(&code)) && self.dice.below(5) > 0 {
            self.forget();
        }
        if let Some(tokens) = Tokens::in_answer(answer) {
            ledger.issued(&tokens, sent);
            self.forget();
            // An anonymous user's session is nobody's here, and stays.
            if tokens.user == self.person.user {
                self.tokens = Some(tokens);
            }
        }
    }

    fn forget(&mut self) {
        self.old.extend(self.tokens.take());
        if self.old.len() > REMEMBERED {
            self.old.remove(0);
        }
    }

    async fn sign_in(&mut self, operation: Op, world: &World, client: &Client) -> Option<Answer> {
        let email = &self.person.email;
        match operation {
            Op::FollowLink if !world.kind().has_admin_api() => {
                let asked = client.recover(email).await;
                if asked.status != StatusCode::OK {
                    return Some(asked);
                }
                Some(client.follow("recovery", &world.gotrue.recovery_token(email).await).await)
            }
            Op::FollowLink => {
                let link = world.admin.link("magiclink", email).await?;
                Some(client.follow("magiclink", &link.token_hash).await)
            }
            Op::UseLink => {
                let link = world.admin.link("recovery", email).await?;
                Some(client.verify("recovery", &link.token_hash).await)
            }
            Op::TradeCode => {
                let asked = client.recover_with_code(email).await;
                if asked.status != StatusCode::OK {
                    return Some(asked);
                }
                let redirect = client.follow("recovery", &world.gotrue.recovery_token(email).await).await;
                let has_code =
                    redirect.header("location").is_some_and(|location| location.contains("?code="));
                if has_code { Some(client.trade_code(&redirect).await) } else { Some(redirect) }
            }
            Op::UseCode => {
                let link = world.admin.link("magiclink", email).await?;
                let code = json!({"type": "email", "email": email, "token": link.otp});
                Some(client.post("/verify", &code).await)
            }
            Op::BecomeSomebodyNew => Some(client.sign_up_anonymously().await),
            Op::BecomePermanent => Some(become_permanent(world, client).await),
            _ => {
                let password = self.person.password.lock().unwrap().clone();
                Some(client.signed_in(email, &password).await)
            }
        }
    }

    async fn with_tokens(&mut self, operation: Op, world: &World, client: &Client) -> Option<Answer> {
        let tokens = self.tokens.clone()?;
        let old = self.dice.one_of(&self.old).cloned();
        Some(match operation {
            Op::GrantApplication => client.grant(&tokens, &world.application).await,
            Op::RevokeGrant => client.revoke_grant(&tokens, &world.application).await,
            Op::LoseApplication => lose_application(world, client, &tokens).await,
            Op::Refresh => refresh(world, client, &tokens).await,
            Op::RefreshTwiceAtOnce => {
                let sent = now();
                let (one, other) =
                    tokio::join!(refresh(world, client, &tokens), refresh(world, client, &tokens));
                self.account(operation, world, &one, sent);
                other
            }
            Op::RefreshWithOldToken => refresh(world, client, &old?).await,
            Op::RefreshWithUnknownToken => client.refresh_with("aaaaaaaaaaaa").await,
            Op::GetUser => client.user(&tokens).await,
            Op::GetUserWithOldToken => client.user(&old?).await,
            Op::LogoutGlobal => log_out(world, client, &tokens, "?scope=global").await,
            Op::LogoutLocal => log_out(world, client, &tokens, "?scope=local").await,
            Op::LogoutOthers => client.logout(&tokens, "?scope=others").await,
            Op::LogoutWithoutScope => log_out(world, client, &tokens, "").await,
            Op::LogoutUnknownScope => client.logout(&tokens, "?scope=all").await,
            Op::LogoutWithOldToken => log_out(world, client, &old?, "?scope=local").await,
            Op::LogoutForged => {
                let access = signed("a-secret-that-nobody-was-given-at-all", &tokens.claims());
                client.logout(&Tokens { access, ..tokens }, "?scope=global").await
            }
            Op::LogoutWithoutSession => {
                let claims = json!({"sub": tokens.user.to_string(), "exp": 4_102_444_800_u64});
                let access = signed(world.gotrue.secret, &claims);
                client.logout(&Tokens { access, ..tokens }, "?scope=local").await
            }
            Op::UpdateData => client.update(&tokens, &json!({"data": {"mood": self.dice.below(9)}})).await,
            Op::ChangePassword => {
                let password = self.new_password();
                let answer = client.change_password(&tokens, &password).await;
                self.note_password(&answer, password);
                answer
            }
            _ => return self.with_factors(operation, client, &tokens, old).await,
        })
    }

    async fn with_factors(
        &mut self,
        operation: Op,
        client: &Client,
        tokens: &Tokens,
        old: Option<Tokens>,
    ) -> Option<Answer> {
        if operation == Op::AddFactor {
            if self.person.factors.lock().unwrap().len() >= FACTORS {
                return None;
            }
            let factor = match client.enroll(tokens).await {
                Ok(factor) => factor,
                Err(refused) => return Some(refused),
            };
            let answer = client.verify_factor(tokens, &factor).await;
            if answer.status == StatusCode::OK {
                self.person.factors.lock().unwrap().push(factor);
            }
            return Some(answer);
        }
        let factors = self.person.factors.lock().unwrap().clone();
        let factor = self.dice.one_of(&factors)?;
        if operation == Op::VerifyFactor {
            return Some(client.verify_factor(tokens, factor).await);
        }
        // An earlier token of a session that was raised meanwhile does it as well.
        let of_before = old.filter(|old| old.session == tokens.session && self.dice.below(2) == 0);
        let answer = client.unenroll(&of_before.unwrap_or_else(|| tokens.clone()), factor).await;
        self.note_removed(&answer, &factor.id);
        Some(answer)
    }

    async fn as_admin(&mut self, operation: Op, world: &World) -> Option<Answer> {
        let (admin, user) = (&world.admin, self.person.user);
        Some(match operation {
            Op::AdminBans => admin.update(user, &json!({"ban_duration": "1h"})).await,
            Op::AdminBansBriefly => admin.update(user, &json!({"ban_duration": "1s"})).await,
            Op::AdminLiftsBan => admin.update(user, &json!({"ban_duration": "none"})).await,
            Op::AdminSetsPassword => {
                let password = self.new_password();
                let answer = admin.update(user, &json!({"password": password})).await;
                self.note_password(&answer, password);
                answer
            }
            Op::AdminRemovesFactor => {
                let factors = self.person.factors.lock().unwrap().clone();
                let factor = self.dice.one_of(&factors)?;
                let answer = admin.remove_factor(user, &factor.id).await;
                self.note_removed(&answer, &factor.id);
                answer
            }
            _ => {
                let answer = admin.delete(user, operation == Op::AdminDeletesSoftly).await;
                if answer.status == StatusCode::OK {
                    self.person.gone.store(true, Ordering::Relaxed);
                }
                answer
            }
        })
    }

    fn new_password(&mut self) -> String {
        format!("a new password, number {}", self.dice.below(1_000_000))
    }

    fn note_password(&self, answer: &Answer, password: String) {
        if answer.status == StatusCode::OK {
            *self.person.password.lock().unwrap() = password;
        }
    }

    fn note_removed(&self, answer: &Answer, factor: &str) {
        if answer.status == StatusCode::OK {
            self.person.factors.lock().unwrap().retain(|known| known.id != factor);
        }
    }
}

/// A logout that is meant for its own session too: where GoTrue refuses it, it stands here all the same.
async fn log_out(world: &World, client: &Client, tokens: &Tokens, query: &str) -> Answer {
    let answer = client.logout(tokens, query).await;
    if answer.status != StatusCode::NO_CONTENT {
        world.ledger().ended_here_only.insert(tokens.session);
    }
    answer
}

/// As whoever has the session, its user or the application.
pub(super) async fn refresh(world: &World, client: &Client, tokens: &Tokens) -> Answer {
    if tokens.claims()["client_id"].is_null() {
        client.refresh(tokens).await
    } else {
        client.refresh_as(&world.application, &tokens.refresh).await
    }
}

/// An anonymous user gets an address; the next token says so.
async fn become_permanent(world: &World, client: &Client) -> Answer {
    let (sent, answer) = (now(), client.sign_up_anonymously().await);
    let Some(nobody) = Tokens::in_answer(&answer) else { return answer };
    world.ledger().issued(&nobody, sent);
    let named = client.update(&nobody, &json!({"email": new_email()})).await;
    if named.status == StatusCode::OK { client.refresh(&nobody).await } else { named }
}

/// GoTrue ends no session with the application; nobody can refresh what it had.
async fn lose_application(world: &World, client: &Client, tokens: &Tokens) -> Answer {
    let (sent, application) = (now(), world.admin.register_application().await);
    let granted = client.grant(tokens, &application).await;
    if let Some(granted) = Tokens::in_answer(&granted) {
        world.ledger().issued(&granted, sent);
    }
    world.admin.delete_application(&application).await
}

fn needs_tokens(operation: Op) -> bool {
    !matches!(
        operation,
        Op::SignIn
            | Op::FollowLink
            | Op::UseLink
            | Op::UseCode
            | Op::TradeCode
            | Op::BecomeSomebodyNew
            | Op::BecomePermanent
            | Op::AskForLinkAsStranger
            | Op::AdminBans
            | Op::AdminBansBriefly
            | Op::AdminLiftsBan
            | Op::AdminSetsPassword
            | Op::AdminRemovesFactor
            | Op::AdminDeletes
            | Op::AdminDeletesSoftly
    )
}
