//! Runs a built sidecar, and takes it down in the order of the drain: not ready, still accepting;
//! then no new connections, what was begun is finished, recordings included; then the end.

use tokio::{runtime::Handle, sync::watch};

use super::{App, Error};
use crate::{
    shutdown::Phase,
    worker::{self, Listeners},
};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was begun was finished.
    Drained,
    /// So many connections and recordings were cut off: the deadline had passed, or there was a second signal.
    Cut(usize),
}

impl App {
    /// Serves until its drain has come to an end.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub async fn run(self) -> Result<Ended, Error> {
        let Self { listener, admin, workers, setup, drain, errands } = self;
        let (end, tasks, mut phases) = (setup.end.clone(), setup.terms.tasks.clone(), drain.phases());
        let readiness = setup.admin.readiness.clone();
        let mut threads = Vec::new();
        setup.admin.runtimes.add(Handle::current().metrics());
        for index in 0..workers {
            let listeners = Listeners {
                public: listener.try_clone().map_err(Error::System)?,
                admin: admin.try_clone().map_err(Error::System)?,
            };
            threads.push(worker::start(index, listeners, setup.clone()).map_err(Error::System)?);
        }
        drop((listener, admin)); // the workers' clones keep it open; the last one closes it
        readiness.set_listening(true);
        let beside = async { tokio::join!(errands.run(), drain.run()) };
        let ended = async {
            reached(&mut phases, Phase::Announced).await;
            readiness.set_draining();
            reached(&mut phases, Phase::Closing).await;
            readiness.set_listening(false);
            tasks.close();
            let mut aborted = phases.clone();
            tokio::select! {
                biased; // whoever insists did not let it finish, even where nothing was left
                () = reached(&mut aborted, Phase::Aborted) => Ended::Cut(tasks.len()),
                () = tasks.wait() => Ended::Drained,
            }
        };
        let ended = tokio::select! {
            ended = ended => ended,
            _ = beside => Ended::Cut(tasks.len()),
        };
        end.cancel();
        for thread in threads {
            let _ = thread.join(); // a worker that panicked has said so
        }
        Ok(ended)
    }
}

/// Waits until the drain has come so far. Never returns when nobody can drive it any more.
async fn reached(phases: &mut watch::Receiver<Phase>, phase: Phase) {
    if phases.wait_for(|now| *now >= phase).await.is_err() {
        std::future::pending::<()>().await;
    }
}
