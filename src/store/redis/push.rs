//! Redis tells of changes as they happen: client-side caching in broadcast mode (`CLIENT TRACKING`), over a
//! connection of its own to every master. What it says only ever makes somebody forget and ask again, so that a message
//! that is lost, or a Redis that sends none, costs no more than the time that was granted anyway.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

use super::{access::Access, reply, route::Route, target::Role};
use crate::{
    config::store_url::Address,
    store::{
        changes::{Changes, Heard},
        keys::Keys,
    },
};

/// Bound on making the connection, and on each answer over it.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that says nothing is asked whether it is still there.
const PING: Duration = Duration::from_secs(1);
/// Before the next attempt, when Redis could not be reached: the first time, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Before the next attempt, when Redis said that it does not do this, or not for us.
const REFUSED: Duration = Duration::from_secs(30);

/// How often it is asked which masters there are.
const LOOK: Duration = Duration::from_secs(1);

/// What a listener needs.
#[derive(Clone, Debug)]
pub(super) struct Ears {
    pub(super) access: Arc<Access>,
    pub(super) keys: Keys,
    pub(super) changes: Arc<Changes>,
    /// One of them has something to say of itself.
    pub(super) turned: Arc<Notify>,
}

/// One that listens to one master, until it is dropped.
struct Listener {
    heard: Arc<Mutex<Heard>>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens to every master that `route` leads to, as long as the future runs. `told` hears how that stands, when it
/// changes.
pub(super) async fn follow(route: &Route, ears: &Ears, told: impl Fn(Heard)) {
    let mut listeners: HashMap<Option<Address>, Listener> = HashMap::new();
    let mut before = None;
    loop {
        let mut heard = Heard::NotNow;
        match route.masters().await {
            Ok(masters) => {
                listeners.retain(|master, _| masters.contains(master));
                for master in masters {
                    listeners.entry(master.clone()).or_insert_with(|| ears.listener(master));
                }
            }
            Err(error) => heard = Heard::No(error),
        }
        // whose masters cannot be asked for now may still be heard
        if !listeners.is_empty() {
            heard = together(listeners.values().map(Listener::heard));
        }
        if before.as_ref() != Some(&heard) {
            told(heard.clone());
            before = Some(heard);
        }
        tokio::select! {
            () = ears.turned.notified() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Changes are told of when every master tells of its own.
fn together(all: impl Iterator<Item = Heard>) -> Heard {
    all.reduce(|one, other| match (one, other) {
        (Heard::No(error), _) | (_, Heard::No(error)) => Heard::No(error),
        (Heard::NotNow, _) | (_, Heard::NotNow) => Heard::NotNow,
        (Heard::Yes, Heard::Yes) => Heard::Yes,
    })
    .unwrap_or(Heard::NotNow)
}

impl Listener {
    fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ears {
    fn listener(&self, master: Option<Address>) -> Listener {
        let (ears, heard) = (self.clone(), Arc::new(Mutex::new(Heard::NotNow)));
        let says = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            ears.listen(master.as_ref(), |heard| {
                *says.lock().unwrap_or_else(PoisonError::into_inner) = heard;
                ears.turned.notify_one();
            })
            .await;
        });
        Listener { heard, task: task.abort_handle() }
    }

    async fn listen(&self, master: Option<&Address>, says: impl Fn(Heard)) {
        let mut pause = PAUSE.0;
        loop {
            let lost = Arc::new(Notify::new());
            match self.subscribe(master, &lost).await {
                Ok(mut connection) => {
                    self.changes.of_everybody(); // nobody told us of what happened before
                    says(Heard::Yes);
                    until_lost(&mut connection, &lost).await;
                    self.changes.of_everybody();
                    says(Heard::NotNow);
                    pause = PAUSE.0;
                }
                Err(error) => {
                    says(Heard::No(reply::error_of(&error)));
                    sleep(if is_refusal(&error) { REFUSED } else { pause }).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn subscribe(
        &self,
        master: Option<&Address>,
        lost: &Arc<Notify>,
    ) -> RedisResult<MultiplexedConnection> {
        let (heard, from, gone) = (Arc::clone(&self.changes), self.keys.clone(), Arc::clone(lost));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(move |push: PushInfo| {
                hear(&push, &from, &heard, &gone);
                Ok::<(), Infallible>(())
            });
        let mut connection = self.access.connect(master, Role::Teller, &config).await?;
        let mut track = ::redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(self.keys.of_users());
        track.exec_async(&mut connection).await?;
        Ok(connection)
    }
}

/// Until the connection is closed, or does not answer any more.
async fn until_lost(connection: &mut MultiplexedConnection, lost: &Notify) {
    loop {
        tokio::select! {
            () = lost.notified() => return,
            () = sleep(PING) => {}
        }
        if ::redis::cmd("PING").exec_async(connection).await.is_err() {
            return;
        }
    }
}

/// Whether Redis itself said no, as one does that is too old or that does not allow it.
fn is_refusal(error: &::redis::RedisError) -> bool {
    error.code().is_some_and(|code| !matches!(code, "LOADING" | "MASTERDOWN" | "BUSY"))
}

fn hear(push: &PushInfo, keys: &Keys, changes: &Changes, lost: &Notify) {
    match (&push.kind, push.data.as_slice()) {
        (PushKind::Disconnection, _) => lost.notify_one(),
        (PushKind::Invalidate, [Value::Array(names)]) => {
            for key in names {
                if let Value::BulkString(key) = key
                    && let Some(user) = std::str::from_utf8(key).ok().and_then(|key| keys.user_of(key))
                {
                    changes.of(user);
                }
            }
        }
        (PushKind::Invalidate, _) => changes.of_everybody(), // everything was flushed
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::UserId;

    #[test]
    fn changes_are_told_of_when_every_master_tells() {
        let no = Heard::No(crate::store::Error::Timeout);
        let table = [
            (vec![], Heard::NotNow),
            (vec![Heard::Yes, Heard::Yes], Heard::Yes),
            (vec![Heard::Yes, Heard::NotNow], Heard::NotNow),
            (vec![Heard::NotNow, no.clone(), Heard::Yes], no),
        ];
        for (all, expected) in table {
            assert_eq!(together(all.clone().into_iter()), expected, "{all:?}");
        }
    }

    #[test]
    fn what_is_pushed_is_noted_for_whom_it_concerns() {
        let [one, other] = ["0191d1a0-0000-7000-8000-000000000001", "0191d1a0-0000-7000-8000-000000000002"]
            .map(|text| UserId::parse(text).unwrap());
        let keys = Keys::new("gotrue");
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let table = [
            (vec![Value::Array(vec![text(&keys.marks(one))])], [true, false]),
            (vec![Value::Array(vec![text("gotrue:{x}:marks"), text(&keys.index(other))])], [false, true]),
            (vec![Value::Array(vec![text("gotrue:refresh:x"), Value::Int(1)])], [false, false]),
            (vec![Value::Nil], [true, true]),
        ];
        for (data, expected) in table {
            let (changes, lost) = (Changes::default(), Notify::new());
            let before = [changes.noted(one), changes.noted(other)];
            hear(&PushInfo { kind: PushKind::Invalidate, data: data.clone() }, &keys, &changes, &lost);
            let moved = [changes.noted(one) != before[0], changes.noted(other) != before[1]];
            assert_eq!(moved, expected, "{data:?}");
        }
    }
}
