//! Redis tells of changes as they happen: client-side caching in broadcast mode (`CLIENT TRACKING`), over a
//! connection of its own to each master. What it says only ever makes somebody forget and ask again, so that a
//! message that is lost, or a Redis that sends none, costs no more than the time that was granted anyway.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use ::redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    access::Access,
    failure,
    route::{Master, Route},
    target::Role,
};
use crate::{
    config::store_url::Address,
    store::{
        changes::{Changes, Heard},
        keys::Keys,
    },
};

/// How often it is looked who the masters are.
const LOOK: Duration = Duration::from_secs(1);
/// What masters have told that was not heard yet; more of them wait.
const MASTERS: usize = 64;
/// Bound on making the connection, and on each answer over it.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that says nothing is asked whether it is still there.
const PING: Duration = Duration::from_secs(1);
/// Before the next attempt, when Redis could not be reached: the first time, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Before the next attempt, when Redis said that it does not do this, or not for us.
const REFUSED: Duration = Duration::from_secs(30);

/// Listens to every master, as long as the future runs. `told` hears how that stands, as often as it is found out.
pub(super) async fn follow(
    access: &Arc<Access>,
    route: &Route,
    keys: &Keys,
    changes: &Arc<Changes>,
    told: impl Fn(Heard),
) {
    let (tell, mut hears) = mpsc::channel(MASTERS);
    let mut listeners: HashMap<Master, Listener> = HashMap::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let Ok(masters) = route.masters().await else { continue };
                let before = listeners.len();
                listeners.retain(|master, _| masters.contains(master));
                if listeners.len() < before {
                    changes.of_everybody(); // nobody will tell of what somebody else has now
                }
                for master in masters {
                    let from = (Arc::clone(access), master.clone(), keys.clone(), Arc::clone(changes));
                    listeners.entry(master).or_insert_with(|| Listener::begin(from, tell.clone()));
                }
            }
            Some((master, told_by)) = hears.recv() => match listeners.get_mut(&master) {
                Some(listener) => listener.heard = told_by,
                None => continue,
            },
        }
        told(Heard::by_all(listeners.values().map(|listener| &listener.heard)));
    }
}

/// One connection to one master, kept up until this is dropped.
struct Listener {
    heard: Heard,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    fn begin(
        (access, master, keys, changes): (Arc<Access>, Master, Keys, Arc<Changes>),
        tell: mpsc::Sender<(Master, Heard)>,
    ) -> Self {
        let task = tokio::spawn(async move {
            let mut pause = PAUSE.0;
            loop {
                let lost = Arc::new(Notify::new());
                let heard = match subscribe(&access, master.as_ref(), &keys, &changes, &lost).await {
                    Ok(mut connection) => {
                        changes.of_everybody(); // nobody told us of what happened before
                        let _ = tell.send((master.clone(), Heard::Yes)).await;
                        let since = Instant::now();
                        until_lost(&mut connection, &lost).await;
                        changes.of_everybody();
                        // at once, unless it is closed again and again
                        pause = if since.elapsed() > PAUSE.1 { Duration::ZERO } else { PAUSE.0 };
                        Heard::NotNow
                    }
                    Err(error) => {
                        pause = if failure::is_refusal(&error) {
                            REFUSED
                        } else {
                            (pause * 2).clamp(PAUSE.0, PAUSE.1)
                        };
                        Heard::No(failure::error_of(&error))
                    }
                };
                let _ = tell.send((master.clone(), heard)).await;
                sleep(pause).await;
            }
        });
        Self { heard: Heard::NotNow, _task: AbortOnDropHandle::new(task) }
    }
}

async fn subscribe(
    access: &Arc<Access>,
    master: Option<&Address>,
    keys: &Keys,
    changes: &Arc<Changes>,
    lost: &Arc<Notify>,
) -> RedisResult<MultiplexedConnection> {
    let (heard, from, gone) = (Arc::clone(changes), keys.clone(), Arc::clone(lost));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_push_sender(move |push: PushInfo| {
            hear(&push, &from, &heard, &gone);
            Ok::<(), Infallible>(())
        });
    let mut connection = access.connect(master, Role::Teller, &config).await?;
    let mut track = ::redis::cmd("CLIENT");
    track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(keys.of_users());
    track.exec_async(&mut connection).await?;
    Ok(connection)
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
