//! Files that are in use: whether they hold something else by now.
//!
//! Contents are compared, not times or inodes: mounted Secrets change by swapping a symlink above
//! them, and a file that was only touched is no news.

use std::{collections::BTreeSet, fs, path::PathBuf};

use crate::config::SecretSource;
use aws_lc_rs::digest::{SHA256, digest};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The listener's certificate or key.
    Certificate,
    /// A key that verifies tokens.
    Keys,
    /// The store's address or password.
    Store,
}

/// The files in use, with what they held last.
#[derive(Debug, Default)]
pub struct Watched(Vec<File>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    purpose: Purpose,
    /// A hash: secrets are not kept here.
    held: Option<Vec<u8>>,
}

impl Watched {
    /// Watches a file from now on.
    pub fn watch(&mut self, purpose: Purpose, path: PathBuf) {
        let held = content(&path);
        self.0.push(File { path, purpose, held });
    }

    /// Watches the file that a secret comes from, if it comes from one.
    pub fn watch_secret(&mut self, purpose: Purpose, source: &SecretSource) {
        if let SecretSource::File(path) = source {
            self.watch(purpose, path.clone());
        }
    }

    /// What has changed since the last time. A file that cannot be read now has not.
    pub fn changed(&mut self) -> Vec<Purpose> {
        let mut changed = BTreeSet::new();
        for file in &mut self.0 {
            let now = content(&file.path);
            if now.is_some() && now != file.held {
                file.held = now;
                changed.insert(file.purpose);
            }
        }
        changed.into_iter().collect()
    }
}

fn content(path: &std::path::Path) -> Option<Vec<u8>> {
    Some(digest(&SHA256, &fs::read(path).ok()?).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_something_else_is_news_once() {
        let folder = tempfile::tempdir().unwrap();
        let (key, password) = (folder.path().join("key"), folder.path().join("password"));
        fs::write(&key, "a").unwrap();
        fs::write(&password, "a").unwrap();
        let mut watched = Watched::default();
        watched.watch(Purpose::Certificate, key.clone());
        watched.watch(Purpose::Store, password.clone());
        fs::write(&key, "a").unwrap();
        assert_eq!(watched.changed(), []);
        fs::write(&key, "b").unwrap();
        assert_eq!(watched.changed(), [Purpose::Certificate]);
        assert_eq!(watched.changed(), []);
        fs::remove_file(&password).unwrap();
        assert_eq!(watched.changed(), []);
        fs::write(&password, "c").unwrap();
        assert_eq!(watched.changed(), [Purpose::Store]);
    }
}
