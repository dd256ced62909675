//! The queue on disk (`store.spool_dir`), so that it survives a restart: one file to which records are added, each with
//! its length and a checksum. What is torn or damaged is noticed, and the rest used.
//!
//! A record is four bytes of length, eight of the payload's SHA-256, and the payload: a change that was put in, or the
//! ids of those that need not be written any more. The file is written anew when it has become twice as large as what
//! lives, or nothing does.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{form::Line, held::Queued};

/// What the file begins with.
const MAGIC: &[u8] = b"gotrue-sidecar queue 1\n";
/// Length and checksum before each payload.
const HEAD: usize = 4 + SUM;
const SUM: usize = 8;
/// Longest payload that is believed to be one.
const LONGEST: usize = 1 << 20;
/// So many ids are in one payload at most: those of far fewer bytes than that.
const IDS: usize = 10_000;
/// The file may have this much more than twice what lives before it is written anew.
const SLACK: u64 = 64 * 1024;

const NAME: &str = "queue";
const NEW_NAME: &str = "queue.new";
const LOCK_NAME: &str = "queue.lock";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is not there, or files cannot be made in it.
    #[error("store.spool_dir: expected a folder that can be written to at {}: {source}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("store.spool_dir: expected a folder of its own, another process uses {}", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// There is a file in the queue's place that is none.
    #[error("store.spool_dir: expected no file or a queue of gotrue-sidecar at {}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// The file, of which nobody else has any.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    file: File,
    /// Up to where the file is known to be good.
    end: u64,
    /// How large the records of those changes are that live.
    sizes: HashMap<u64, u64>,
    /// The last write has failed: the file must be written anew.
    torn: bool,
    /// Locked for as long as it is open.
    _lock: File,
}

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Changes that were put in and had not been written, in order.
    pub(super) lines: Vec<Line>,
    /// So many bytes could not be read.
    pub(super) damaged: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Put(u64, Line),
    Gone(Vec<u64>),
}

impl Spool {
    /// Takes the folder and reads what is there.
    pub(super) fn open(folder: &Path) -> Result<(Self, Found), SpoolError> {
        let unusable = |source| SpoolError::Unusable { path: folder.to_owned(), source };
        let lock = private().open(folder.join(LOCK_NAME)).map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => SpoolError::Taken { path: folder.to_owned() },
            error => unusable(error.into()), // not every file system has locks
        })?;
        let path = folder.join(NAME);
        let mut file = private().open(&path).map_err(unusable)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unusable)?;
        let found = read(&bytes).ok_or(SpoolError::Foreign { path })?;
        let sizes = HashMap::new();
        let spool = Self { folder: folder.to_owned(), file, end: 0, sizes, torn: true, _lock: lock };
        Ok((spool, found))
    }

    /// Adds what is new; on the disk when it returns.
    pub(super) fn add(&mut self, gone: &[u64], fresh: &[Arc<Queued>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let gone: Vec<u64> = gone.iter().copied().filter(|id| self.sizes.remove(id).is_some()).collect();
        for queued in fresh {
            let size = append(&mut bytes, &Record::Put(queued.id, Line::of(queued)))?;
            self.sizes.insert(queued.id, size);
        }
        for ids in gone.chunks(IDS) {
            append(&mut bytes, &Record::Gone(ids.to_vec()))?;
        }
        self.torn = true; // until it is written in whole
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        self.torn = false;
        Ok(())
    }

    /// Whether it must be written anew, with all that lives, rather than added to.
    pub(super) fn needs_rewriting(&self) -> bool {
        let live: u64 = self.sizes.values().sum();
        let empty = self.sizes.is_empty() && self.end > MAGIC.len() as u64;
        self.torn || empty || self.end > 2 * live + SLACK
    }

    /// Writes the file anew, beside the old one and then in its place.
    pub(super) fn rewrite(&mut self, all: &[Arc<Queued>]) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        let mut sizes = HashMap::new();
        for queued in all {
            sizes.insert(queued.id, append(&mut bytes, &Record::Put(queued.id, Line::of(queued)))?);
        }
        self.torn = true;
        let new = self.folder.join(NEW_NAME);
        let mut file = private().truncate(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(NAME))?;
        File::open(&self.folder)?.sync_all()?;
        (self.file, self.end, self.sizes, self.torn) = (file, bytes.len() as u64, sizes, false);
        Ok(())
    }
}

/// For this user's eyes only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Adds a record; gives back its size.
fn append(bytes: &mut Vec<u8>, record: &Record) -> io::Result<u64> {
    let payload = serde_json::to_vec(record)?;
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sum(&payload));
    bytes.extend_from_slice(&payload);
    Ok(HEAD as u64 + u64::from(length))
}

fn sum(payload: &[u8]) -> [u8; SUM] {
    let hash = digest::digest(&digest::SHA256, payload);
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Reads a file; `None` where it is none of ours. A beginning that was cut off is.
fn read(bytes: &[u8]) -> Option<Found> {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return MAGIC.starts_with(bytes).then(|| Found { damaged: bytes.len(), ..Found::default() });
    };
    let mut lines = BTreeMap::new();
    let mut damaged = 0;
    while !rest.is_empty() {
        let Some((payload, sound, after)) = next(rest) else {
            damaged += rest.len();
            break;
        };
        match sound.then(|| serde_json::from_slice(payload)) {
            Some(Ok(Record::Put(id, line))) => drop(lines.insert(id, line)),
            Some(Ok(Record::Gone(ids))) => ids.iter().for_each(|id| drop(lines.remove(id))),
            Some(Err(_)) | None => damaged += rest.len() - after.len(),
        }
        rest = after;
    }
    Some(Found { lines: lines.into_values().collect(), damaged })
}

/// A payload, whether its checksum holds, and what comes after it.
fn next(bytes: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (expected, rest) = rest.split_first_chunk::<SUM>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (payload, rest) = rest.split_at_checked(length).filter(|_| length <= LONGEST)?;
    Some((payload, sum(payload) == *expected, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::By,
        config,
        metrics::Metrics,
        mirror::{ByRef, Fate},
        replay::{Queue, What},
        session::{
            Aal, Change, FactorId, Origin, Reason, Record as Session, RefreshRef, SessionId, UserId, Which,
        },
    };

    const BY: By<'_> = By { route: "/token", request_id: b"r\xff1" };

    fn one_of_each() -> Vec<What> {
        let id = "0191d1a0-0000-7000-8000-00000000000a";
        let (user, session) = (UserId::parse(id).unwrap(), SessionId::parse(id).unwrap());
        let factor = FactorId::parse_as_gotrue(id).unwrap();
        let reference = RefreshRef::parse(&"a".repeat(43));
        let record = Session {
            user,
            session,
            refresh_ref: reference.clone(),
            previous_ref: None,
            counter: Some(3),
            created_at: 1,
            began_ms: 2,
            begun_by_ms: 3,
            refreshed_at: 3,
            seen_at: Some(4),
            expires_at: u64::MAX,
            aal: Some(Aal::Aal2),
            factor_id: Some(factor),
            amr: Some("totp,password".to_owned()),
            role: None,
            client_id: Some("client".to_owned()),
            anonymous: true,
            ip: Some("192.0.2.1".to_owned()),
            user_agent: Some("curl/8 \u{2713}\n".to_owned()),
        };
        let end = |which| Change::End {
            user,
            which,
            reason: Reason::GrantRevoked,
            sent_ms: u64::MAX,
            expires_at: None,
            ended_in_gotrue: true,
        };
        let changes = [
            Change::Record { origin: Origin::SignIn, record: Box::new(record), allowed_ms: Some(7) },
            end(Which::Live(session)),
            end(Which::Others(session)),
            end(Which::All),
            end(Which::Aal1Except(session)),
            end(Which::Client("client".to_owned())),
            end(Which::One(SessionId::parse("0191d1a0-0000-7000-8000-00000000000b").unwrap())),
            Change::Suspend { user, until: Some(9), decided_ms: 8 },
            Change::Banned { user, until: 9, seen_ms: 8 },
            Change::Allowed { user, allowed_ms: 8 },
            Change::LowerAal { user, factor },
        ];
        let fates = [Fate::Ended(Reason::RefreshReuse), Fate::Banned(9)];
        let reference = reference.unwrap();
        let by_ref = |fate| What::ByRef(ByRef { reference: reference.clone(), fate, sent_ms: 8 });
        changes.into_iter().map(What::Change).chain(fates.map(by_ref)).collect()
    }

    fn queue() -> Queue {
        let config = config::Queue { changes: 100, bytes: usize::MAX, spool_dir: None };
        Queue::open(&config, Arc::new(Metrics::new().unwrap())).unwrap()
    }

    fn filled() -> Vec<Arc<Queued>> {
        let queue = queue();
        for what in one_of_each() {
            queue.put(what, BY, 5);
        }
        queue.held().all()
    }

    /// What a file holds after these were added in turn.
    fn written(folder: &Path, added: &[Arc<Queued>]) -> Vec<u8> {
        let (mut spool, _) = Spool::open(folder).unwrap();
        spool.rewrite(&[]).unwrap();
        for queued in added {
            spool.add(&[], std::slice::from_ref(queued)).unwrap();
        }
        fs::read(folder.join(NAME)).unwrap()
    }

    fn whats(found: &Found) -> Vec<What> {
        found.lines.iter().filter_map(Line::what).collect()
    }

    #[test]
    fn every_change_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let found = read(&written(folder.path(), &filled())).unwrap();
        assert_eq!((whats(&found), found.damaged), (one_of_each(), 0));
        let line = &found.lines[0];
        assert_eq!((line.since, line.by().route), (5, "/token"));
        assert_eq!(line.by().request_id, "r\u{fffd}1".as_bytes());
    }

    #[test]
    fn of_a_torn_file_the_good_part_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path(), &filled());
        let all = one_of_each();
        for length in 0..bytes.len() {
            let found = read(&bytes[..length]).unwrap();
            let read = whats(&found);
            assert!(all.starts_with(&read), "of {length} bytes");
            let good = if length < MAGIC.len() { 0 } else { MAGIC.len() + size_of_first(&bytes, read.len()) };
            assert_eq!(found.damaged, length - good, "of {length} bytes");
        }
    }

    /// So many bytes the first records take.
    fn size_of_first(bytes: &[u8], records: usize) -> usize {
        let mut rest = bytes.strip_prefix(MAGIC).unwrap();
        for _ in 0..records {
            rest = next(rest).unwrap().2;
        }
        bytes.len() - MAGIC.len() - rest.len()
    }

    #[test]
    fn a_damaged_record_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path(), &filled());
        let all = one_of_each();
        let mut kept_going = 0;
        for at in MAGIC.len()..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let found = read(&damaged).unwrap();
            let read = whats(&found);
            assert!(found.damaged > 0 && read.len() < all.len(), "byte {at} is not missed");
            assert!(read.iter().all(|what| all.contains(what)), "byte {at} makes another change");
            kept_going += usize::from(read.len() == all.len() - 1 && found.damaged < bytes.len() / 2);
        }
        assert!(kept_going > bytes.len() * 8 / 10, "{kept_going} of {}", bytes.len());
    }

    #[test]
    fn what_is_gone_is_not_read_and_an_empty_queue_is_a_small_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(folder.path()).unwrap();
        let all = filled();
        let ids: Vec<u64> = all.iter().map(|queued| queued.id).collect();
        spool.rewrite(&all).unwrap();
        spool.add(&ids[1..], &[]).unwrap();
        let file = folder.path().join(NAME);
        assert_eq!(whats(&read(&fs::read(&file).unwrap()).unwrap()), one_of_each()[..1]);
        assert!(!spool.needs_rewriting());
        spool.add(&ids[..1], &[]).unwrap();
        assert!(spool.needs_rewriting());
        spool.rewrite(&[]).unwrap();
        assert_eq!(fs::read(&file).unwrap(), MAGIC);
        for _ in 0..500 {
            spool.add(&ids, &all).unwrap();
        }
        assert!(spool.needs_rewriting(), "it would grow for ever");
    }

    /// Redis comes back and takes more at once than is read back as one payload.
    #[test]
    fn however_much_is_gone_at_once_what_comes_after_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(folder.path()).unwrap();
        spool.rewrite(&[]).unwrap();
        let gone: Vec<u64> = (1_000_000..1_200_000).collect();
        spool.sizes.extend(gone.iter().map(|id| (*id, 0)));
        spool.add(&gone, &[]).unwrap();
        spool.add(&[], &filled()).unwrap();
        let found = read(&fs::read(folder.path().join(NAME)).unwrap()).unwrap();
        assert_eq!((whats(&found), found.damaged), (one_of_each(), 0));
    }

    #[test]
    fn a_folder_has_one_user_and_nothing_of_others_is_touched() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Spool::open(folder.path()), Err(SpoolError::Taken { .. })));
        drop(spool);
        assert!(Spool::open(folder.path()).is_ok());
        fs::write(folder.path().join(NAME), "somebody's shopping list\n").unwrap();
        assert!(matches!(Spool::open(folder.path()), Err(SpoolError::Foreign { .. })));
        assert_eq!(fs::read(folder.path().join(NAME)).unwrap(), b"somebody's shopping list\n");
        assert!(matches!(Spool::open(&folder.path().join("nowhere")), Err(SpoolError::Unusable { .. })));
    }
}
