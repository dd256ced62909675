//! Runs a built sidecar, and takes it down in the order of the drain: not ready, still accepting;
//! then no new connections, what was begun is finished, recordings included, also those that wait for the store; then
//! the end.

use std::sync::Arc;

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
    /// So many connections and recordings were cut off, changes that waited for the store among them: the deadline had passed, or there was a second signal.
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
        let queue = setup.mirroring.as_ref().map(|mirroring| Arc::clone(&mirroring.queue));
        let mut threads = Vec::new();
        let mut runtimes = vec![Handle::current().metrics()];
        for index in 0..workers {
            let listeners = Listeners {
                public: listener.try_clone().map_err(Error::System)?,
                admin: admin.try_clone().map_err(Error::System)?,
            };
            let worker = worker::start(index, listeners, setup.clone()).map_err(Error::System)?;
            runtimes.push(worker.runtime);
            threads.push(worker.thread);
        }
        let _ = setup.admin.runtimes.set(runtimes);
        drop((listener, admin)); // the workers' clones keep it open; the last one closes it
        readiness.set_listening(true);
        let beside = async { tokio::join!(errands.run(), drain.run()) };
        let cut = || Ended::Cut(tasks.len() + queue.as_ref().map_or(0, |queue| queue.len()));
        let ended = async {
            reached(&mut phases, Phase::Announced).await;
            readiness.set_draining();
            reached(&mut phases, Phase::Closing).await;
            readiness.set_listening(false);
            tasks.close();
            let mut aborted = phases.clone();
            let finished = async {
                tasks.wait().await;
                if let Some(queue) = &queue {
                    queue.emptied().await; // nobody puts anything in any more; the errands write what they can
                    queue.filed().await;
                }
            };
            tokio::select! {
                biased; // whoever insists did not let it finish, even where nothing was left
                () = reached(&mut aborted, Phase::Aborted) => cut(),
                () = finished => Ended::Drained,
            }
        };
        let ended = tokio::select! {
            ended = ended => ended,
            _ = beside => cut(),
        };
        if let Some(queue) = &queue {
            queue.tell_left();
        }
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
