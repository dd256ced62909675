//! A configuration while it is put together: everything wrong with it is gathered before anything is said.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    Config, build, files,
    keys::Key,
    problem::{Problem, Problems, Warning},
    reference, rules,
    source::{Given, Values},
};

/// Merged values, and what is wrong with them so far.
#[derive(Debug)]
pub struct Draft {
    file: Option<PathBuf>,
    values: Values,
    problems: Vec<Problem>,
}

/// A configuration without problems.
#[derive(Debug)]
pub struct Loaded {
    /// As the parts use it.
    pub config: Config,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// What works but was probably not meant.
    pub warnings: Vec<Warning>,
    values: Values,
}

impl Draft {
    /// Reads the file that was named, else `sidecar.yaml` if it is there, and merges it with `variables` and
    /// `flags`.
    pub fn read(
        named: Option<&Path>,
        variables: &[(OsString, OsString)],
        flags: Vec<(&'static Key, Given)>,
    ) -> Self {
        let (file, unread) = match files::configuration(named) {
            Ok(file) => (file, None),
            Err(problem) => (None, Some(problem)),
        };
        let text = file.as_ref().map(|(path, text)| (path.as_path(), text.as_str()));
        let (values, found) = Values::merge(text, variables, flags);
        let problems = unread.into_iter().chain(found).collect();
        Self { file: file.map(|(path, _)| path), values, problems }
    }

    /// Adds problems that were found elsewhere, to be told with the others.
    pub fn add(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems);
    }

    /// Reads the files that these keys name, for those who are about to use them.
    pub fn check_files(&mut self, used: impl Fn(&Key) -> bool) {
        self.problems.extend(files::problems(&self.values, used));
    }

    /// Asks for what `audit` cannot do without.
    pub fn check_audit(&mut self) {
        self.problems.extend(rules::for_audit(&self.values));
    }

    /// Looks for what `sessions` cannot do without.
    pub fn check_sessions(&mut self) {
        self.problems.extend(rules::for_sessions(&self.values));
    }

    /// The configuration.
    ///
    /// # Errors
    /// Everything that was wrong with it.
    pub fn finish(self) -> Result<Loaded, Problems> {
        let Self { file, values, mut problems } = self;
        let config = match build::config(&values) {
            Ok(config) => config,
            Err(problem) => {
                problems.push(problem);
                return Err(Problems(problems));
            }
        };
        problems.extend(rules::contradictions(&values, &config));
        if problems.is_empty() {
            let warnings = rules::warnings(&values, &config);
            Ok(Loaded { config, file, warnings, values })
        } else {
            Err(Problems(problems))
        }
    }
}

impl Loaded {
    /// Every key as it holds and where that comes from, as YAML without secrets.
    pub fn effective(&self) -> String {
        reference::effective(&self.values)
    }
}
