//! How to get into Redis: what address and files say, shared by all connections and taken up anew when they
//! change or Redis refuses what they said.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ::redis::{AsyncConnectionConfig, RedisResult, aio::MultiplexedConnection};
use arc_swap::ArcSwap;

use super::{
    failure,
    target::{Role, Target},
};
use crate::{
    config::{RedisTarget, store_url::Address},
    store::{Error, OpenError},
};

/// The files are not read more often than this because Redis refuses what they said.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The configuration, and what its files said last.
#[derive(Debug)]
pub(super) struct Access {
    config: RedisTarget,
    current: ArcSwap<Target>,
    read_again: Mutex<Option<Instant>>,
}

impl Access {
    /// Reads address and files.
    ///
    /// # Errors
    /// When one of them cannot be read or used.
    pub(super) fn new(config: &RedisTarget) -> Result<Self, OpenError> {
        let current = ArcSwap::from_pointee(Target::read(config)?);
        Ok(Self { config: config.clone(), current, read_again: Mutex::new(None) })
    }

    /// What was read last.
    pub(super) fn target(&self) -> Arc<Target> {
        self.current.load_full()
    }

    /// Reads address and files again, for connections that are made from now on.
    ///
    /// # Errors
    /// As [`Access::new`], and when it is another shape of Redis now; nothing changes then.
    pub(super) fn reload(&self) -> Result<(), OpenError> {
        let target = Target::read(&self.config)?;
        let used = self.target();
        if target.shape != used.shape {
            return Err(OpenError::Shape);
        }
        if !target.is_as(&used) {
            self.current.store(Arc::new(target));
        }
        Ok(())
    }

    /// Connects. Where Redis refuses password or certificate, once more with what the files say by now, if that
    /// is something else. `address`: else the first in the configuration's own.
    pub(super) async fn connect(
        self: &Arc<Self>,
        address: Option<&Address>,
        role: Role,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let used = self.target();
        let refused = match connect(&used, address, role, config).await {
            Err(error) if matches!(failure::error_of(&error), Error::Auth | Error::Tls(_)) => error,
            other => return other,
        };
        self.read_again().await;
        let now = self.target();
        if Arc::ptr_eq(&now, &used) {
            return Err(refused);
        }
        connect(&now, address, role, config).await
    }

    /// Reads the files again unless that was just done. Files that cannot be used are for the next
    /// [`reload`](Self::reload) to complain of.
    async fn read_again(self: &Arc<Self>) {
        {
            let mut last = self.read_again.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < READ_AGAIN) {
                return;
            }
            *last = Some(Instant::now());
        }
        let access = Arc::clone(self);
        let _unusable = tokio::task::spawn_blocking(move || access.reload()).await;
    }
}

/// Connects, and asks whether Redis is ready for us: without a password where one is wanted it says so to a
/// short command, and closes at a long one.
async fn connect(
    target: &Target,
    address: Option<&Address>,
    role: Role,
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let Some(address) = address.or(target.addresses.first()) else {
        return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
    };
    let (client, elsewhere) = target.client(address, role)?;
    let config = match elsewhere {
        Some(elsewhere) => config.clone().set_dns_resolver(elsewhere),
        None => config.clone(),
    };
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    ::redis::cmd("PING").exec_async(&mut connection).await?;
    Ok(connection)
}
