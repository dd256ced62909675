//! Files that the configuration names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Secret, SecretSource,
    keys::{KEYS, Key},
    kind::Kind,
    problem::{FileError, Problem},
    rules,
    source::{Given, Values},
    store_url::StoreUrl,
};

impl SecretSource {
    /// The secret: the value, or what the file holds now without one newline at its end.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, or holds nothing; the error names it.
    pub fn read(&self) -> Result<Secret, FileError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => text(path).map(Secret::new),
        }
    }
}

/// What is wrong with the files that keys name: they cannot be read, or do not hold what their key takes.
/// Certificates are only read here; whoever uses them parses them.
pub(super) fn problems(values: &Values, used: impl Fn(&Key) -> bool) -> Vec<Problem> {
    let files = KEYS.iter().filter(|key| key.kind == Kind::File && used(key));
    let given = files.filter_map(|key| Some((key, values.get(key.name)?)));
    let folders = KEYS.iter().filter(|key| key.kind == Kind::Folder && used(key));
    let folders = folders.filter_map(|key| of_folder(key, values.get(key.name)?));
    given.flat_map(|(key, given)| of_file(values, key, given)).chain(folders).collect()
}

/// What is wrong with the folder that one key names.
fn of_folder(key: &'static Key, given: &Given) -> Option<Problem> {
    let path = PathBuf::from(given.text.reveal());
    let source = match fs::read_dir(&path) {
        Ok(_) => return None,
        Err(source) => FileError::NoFolder { path, source },
    };
    Some(Problem::NamedFile { key: key.name, place: given.place.clone(), source })
}

/// What is wrong with the file that one key names.
fn of_file(values: &Values, key: &'static Key, given: &Given) -> Vec<Problem> {
    let path = Path::new(given.text.reveal());
    let found = match key.twin_of() {
        None => fs::read(path)
            .map(|_| Vec::new())
            .map_err(|source| FileError::Unreadable { path: path.to_owned(), source }),
        Some(value) => text(path).and_then(|text| of_content(values, value, path, &text)),
    };
    found.unwrap_or_else(|source| {
        vec![Problem::NamedFile { key: key.name, place: given.place.clone(), source }]
    })
}

/// What is wrong with a value that a file holds. A store that is kept in a file is a shared one.
fn of_content(values: &Values, value: &Key, path: &Path, text: &str) -> Result<Vec<Problem>, FileError> {
    let refused = |expected| Err(FileError::Content { path: path.to_owned(), expected });
    if !value.kind.admits(text) {
        return refused(value.kind.expected());
    }
    match StoreUrl::parse(text).filter(|_| value.kind == Kind::StoreUrl) {
        Some(StoreUrl::Memory) => {
            refused("the address of a Redis, such as redis://127.0.0.1:6379".to_owned())
        }
        Some(StoreUrl::Redis(url)) => Ok(rules::store(values, &url)),
        None => Ok(Vec::new()),
    }
}

/// The text in a file, without one newline at its end.
fn text(path: &Path) -> Result<String, FileError> {
    let path = path.to_owned();
    match fs::read_to_string(&path) {
        Ok(mut text) => {
            if text.ends_with('\n') {
                text.pop();
                if text.ends_with('\r') {
                    text.pop();
                }
            }
            if text.is_empty() { Err(FileError::Empty { path }) } else { Ok(text) }
        }
        Err(source) => Err(FileError::Unreadable { path, source }),
    }
}

/// The configuration file: the one that was named, else `sidecar.yaml` in the current folder if it is there.
///
/// # Errors
/// When a named file is not there, or any cannot be read.
pub(super) fn configuration(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, Problem> {
    let path = named.unwrap_or(Path::new(super::FILE));
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Problem::ConfigFile { path: path.to_owned(), source }),
    }
}
