//! People who sign in, refresh, ask and sign out, each device with one session at a time, through both replicas.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gotrue_sidecar::session::UserId;
use http::{Request, header};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};

use super::world::{Witness, World};
use crate::{
    model::gotrue::Gotrue,
    support::{dice::Dice, http::send, signer::Login},
};

const PEOPLE: usize = 6;
const DEVICES: usize = 2;
/// A device rests so long after each answer, in milliseconds.
const REST: (usize, usize) = (20, 60);
/// The refresh tokens of these tests can be counted no further.
const REFRESHES: u64 = 100;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it was sent.
    pub(super) at: Instant,
    /// How long its answer took: GoTrue answers at once here, so it is what was added.
    pub(super) took: Duration,
    /// What is wrong about the answer.
    pub(super) error: Option<String>,
    /// The session that asked, if one did.
    pub(super) by: Option<Login>,
}

/// What was done.
pub(super) struct Work {
    /// Every request.
    pub(super) samples: Vec<Sample>,
    /// What the slowest request took that has nothing to do with the store: what the machine adds.
    pub(super) noise: Duration,
}

/// All devices at work.
pub(super) struct Crowd {
    devices: JoinSet<Vec<Sample>>,
    bystanders: JoinSet<Vec<Sample>>,
    stop: Arc<AtomicBool>,
    complaint: Arc<OnceLock<String>>,
}

impl Crowd {
    /// Begins; which requests there are depends on the dice alone, as far as GoTrue's answers do not matter.
    pub(super) fn start(world: &World, mut dice: Dice) -> Self {
        let mut devices = JoinSet::new();
        let (stop, complaint) = (Arc::new(AtomicBool::new(false)), Arc::default());
        for _ in 0..PEOPLE {
            let user = Login::new(0).user;
            for _ in 0..DEVICES {
                let device = Device::new(world, user, dice.fork());
                devices.spawn(device.live(Arc::clone(&stop), Arc::clone(&complaint)));
            }
        }
        let mut bystanders = JoinSet::new();
        for door in 0..2 {
            let device = Device::new(world, Login::new(0).user, dice.fork());
            bystanders.spawn(device.stand_by(door, Arc::clone(&stop)));
        }
        Self { devices, bystanders, stop, complaint }
    }

    /// The first answer that was wrong, so far.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.get().map(String::as_str)
    }

    /// Lets everybody finish.
    pub(super) async fn stop(self) -> Work {
        self.stop.store(true, Ordering::Relaxed);
        let (samples, beside) =
            (self.devices.join_all().await.concat(), self.bystanders.join_all().await.concat());
        let noise = beside.iter().map(|sample| sample.took).max().unwrap_or_default();
        Work { samples, noise }
    }
}

/// What a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    SignIn,
    Refresh,
    User,
    /// With this query.
    Logout(&'static str),
    /// What no session matters to: the store is not asked.
    Settings,
}

/// Sends requests of one user and remembers the newest tokens.
pub(super) struct Device {
    witness: Arc<Witness>,
    doors: [String; 2],
    user: UserId,
    login: Option<Login>,
    dice: Dice,
}

impl Device {
    pub(super) fn new(world: &World, user: UserId, dice: Dice) -> Self {
        let doors = [world.replicas[0].url.clone(), world.replicas[1].url.clone()];
        Self { witness: Arc::clone(&world.witness), doors, user, login: None, dice }
    }

    /// One that has a session.
    pub(super) fn of(world: &World, login: &Login) -> Self {
        let mut device = Self::new(world, login.user, Dice::new(login.counter));
        device.login = Some(login.clone());
        device
    }

    /// Its newest tokens; it must have some.
    pub(super) fn login(&self) -> &Login {
        self.login.as_ref().expect("the device has no session")
    }

    async fn live(mut self, stop: Arc<AtomicBool>, complaint: Arc<OnceLock<String>>) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (ask, door) = (self.choose(), self.dice.below(2));
            let sample = self.ask(ask, door).await;
            if let Some(error) = &sample.error {
                complaint.get_or_init(|| error.clone());
            }
            samples.push(sample);
            let rest = REST.0 + self.dice.below(REST.1 - REST.0);
            sleep(Duration::from_millis(rest.try_into().unwrap())).await;
        }
        samples
    }

    async fn stand_by(mut self, door: usize, stop: Arc<AtomicBool>) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            samples.push(self.ask(Ask::Settings, door).await);
            sleep(Duration::from_millis(20)).await;
        }
        samples
    }

    fn choose(&mut self) -> Ask {
        match &self.login {
            None => Ask::SignIn,
            Some(login) if login.counter >= REFRESHES => Ask::Logout("?scope=local"),
            Some(_) => match self.dice.below(20) {
                0..10 => Ask::Refresh,
                10..14 => Ask::User,
                14..18 => Ask::Logout("?scope=local"),
                18 => Ask::Logout("?scope=others"),
                _ => Ask::Logout(""),
            },
        }
    }

    /// Asks through one of the replicas, and takes what comes.
    pub(super) async fn ask(&mut self, ask: Ask, door: usize) -> Sample {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("storm-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let request = self.request(ask, &self.doors[door], &id);
        let by = self.login.clone();
        let session = by.as_ref().map(|login| login.session);
        let at = Instant::now();
        let answer = send(request).await;
        let took = at.elapsed();
        let error = match answer {
            Err(error) => Some(format!("{ask:?}: {error:?} after {took:?}")),
            Ok(answer) => {
                let error = self.witness.judge(&id, &answer, session);
                if matches!(ask, Ask::Logout("" | "?scope=others")) {
                    self.witness.note_logout(self.user, at..at + took);
                }
                if answer.status.is_client_error() || matches!(ask, Ask::Logout("" | "?scope=local")) {
                    self.login = None;
                } else if let Some(login) = login_in(&answer.body) {
                    if ask == Ask::SignIn {
                        self.witness.note_sign_in(login.session, at..at + took);
                    }
                    self.login = Some(login);
                }
                error.map(|error| format!("{ask:?}: {error}"))
            }
        };
        Sample { at, took, error, by }
    }

    fn request(&self, ask: Ask, door: &str, id: &str) -> Request<String> {
        let refresh = self.login.as_ref().map(Login::refresh).unwrap_or_default();
        let request = match ask {
            Ask::SignIn => Request::post(format!("{door}/token?grant_type=password")),
            Ask::Refresh => Request::post(format!("{door}/token?grant_type=refresh_token")),
            Ask::User => Request::get(format!("{door}/user")),
            Ask::Logout(query) => Request::post(format!("{door}/logout{query}")),
            Ask::Settings => Request::get(format!("{door}/settings")),
        };
        let mut request = request.header("x-request-id", id);
        if let (Ask::User | Ask::Logout(_), Some(login)) = (ask, &self.login) {
            request = request
                .header(header::AUTHORIZATION, format!("Bearer {}", login.access(&self.witness.signer)));
        }
        let body = match ask {
            Ask::SignIn => format!(r#"{{"user":"{}"}}"#, self.user),
            Ask::Refresh => format!(r#"{{"refresh_token":"{refresh}"}}"#),
            Ask::User | Ask::Logout(_) | Ask::Settings => String::new(),
        };
        request.body(body).unwrap()
    }
}

/// The tokens that an answer hands out.
fn login_in(body: &[u8]) -> Option<Login> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(Gotrue::login_of(body["access_token"].as_str()?, body["refresh_token"].as_str()?))
}
