//! Keeps the file of the queue up to date, beside the requests: what they put in is in memory first, and on disk a
//! moment later.

use std::{
    path::Path,
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    Queue,
    spool::{Spool, SpoolError},
};

/// What comes within this time is written in one go. What a process that is killed may lose.
const GATHER: Duration = Duration::from_millis(20);
/// Between tries to write to a disk that is full.
const PAUSE: Duration = Duration::from_secs(1);

impl Queue {
    /// Takes up what a process before has left, and the folder.
    pub(super) fn restore(&self, folder: &Path) -> Result<(), SpoolError> {
        let (mut spool, found) = Spool::open(folder)?;
        if found.damaged > 0 {
            tracing::warn!(
                bytes = found.damaged,
                changes = found.lines.len(),
                "store.spool_dir: the queue on disk was torn or damaged, what could be read of it is used"
            );
        }
        let mut unread = 0;
        for line in &found.lines {
            match line.what() {
                Some(what) => _ = self.put(what, line.by(), line.since),
                None => unread += 1,
            }
        }
        if unread > 0 {
            tracing::error!(
                count = unread,
                "store.spool_dir: changes in the queue on disk do not read as any"
            );
        }
        if !self.is_empty() {
            tracing::info!(changes = self.len(), "changes that a process before has left wait for the store");
        }
        let mut held = self.held();
        held.unspooled();
        let written = spool.rewrite(&held.all());
        drop(held);
        self.metrics.spool_is(written.is_ok());
        match written {
            Ok(()) => self.in_file(u64::MAX),
            // as when it fails later: no reason to be away; the file is still there as it was
            Err(error) => {
                tell_failed(&error);
                self.unwritten.store(true, Relaxed);
                self.touched.notify_one();
            }
        }
        self.filing.store(true, Relaxed);
        *self.spool.lock().unwrap_or_else(PoisonError::into_inner) = Some(spool);
        Ok(())
    }

    /// Writes down what waits, whenever that changes. Returns where there is no folder for it, else never.
    pub async fn keep_file(&self) {
        let spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut spool) = spool else { return };
        let mut well = self.is_in_file();
        loop {
            self.touched.notified().await;
            tokio::time::sleep(GATHER).await;
            while !self.is_in_file() {
                let Some((back, written)) = self.write_down(spool).await else { return };
                spool = back;
                self.metrics.spool_is(written.is_ok());
                match (&written, well) {
                    (Err(error), true) => tell_failed(error),
                    (Ok(()), false) => tracing::info!("store.spool_dir: what waits is on disk again"),
                    _ => {}
                }
                well = written.is_ok();
                if !well {
                    self.unwritten.store(false, Relaxed); // nobody need wait for it
                    tokio::time::sleep(PAUSE).await;
                    self.unwritten.store(true, Relaxed);
                }
            }
        }
    }

    /// Waits until the file knows all, or cannot be written to.
    pub async fn filed(&self) {
        while self.filing.load(Relaxed) && self.unwritten.load(Relaxed) {
            tokio::time::sleep(GATHER).await;
        }
    }

    /// One write, on a thread that may wait for the disk. `None` where that thread panicked.
    async fn write_down(&self, mut spool: Spool) -> Option<(Spool, std::io::Result<()>)> {
        let (gone, fresh, all, last) = {
            let mut held = self.held();
            let (gone, fresh) = held.unspooled();
            let all = (spool.needs_rewriting() || held.len() == 0).then(|| held.all());
            (gone, fresh, all, held.last_id())
        };
        let write = move || {
            let written = match all {
                Some(all) => spool.rewrite(&all),
                None => spool.add(&gone, &fresh),
            };
            (spool, written)
        };
        let (spool, written) = tokio::task::spawn_blocking(write).await.ok()?;
        if written.is_ok() {
            self.in_file(last);
        }
        Some((spool, written))
    }

    /// The file knows all up to this id.
    fn in_file(&self, id: u64) {
        let held = self.held();
        self.written_to.store(id.min(held.last_id()), Relaxed);
        self.unwritten.store(!held.is_spooled(), Relaxed);
    }

    fn is_in_file(&self) -> bool {
        !self.unwritten.load(Relaxed)
    }
}

fn tell_failed(error: &std::io::Error) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "store.spool_dir: what waits cannot be written to disk, and waits in memory only"
    );
}
