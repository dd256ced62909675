//! Where values come from. Four layers, each over the one before: GoTrue's own variables, the file, our
//! variables, the flags. They are merged as text with its place and read once after that.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::Path,
};

use super::{
    Secret,
    keys::{self, CONFIG_VARIABLE, Default, KEYS, Key, UsedBy, VARIABLE_PREFIX},
    problem::{Place, Problem, Rule},
    spelling, yaml,
};

/// A value as it was given.
#[derive(Clone, Debug)]
pub struct Given {
    /// As it was written; any of them may be a secret.
    pub text: Secret,
    /// Where.
    pub place: Place,
}

/// What was given for each key.
#[derive(Clone, Debug, Default)]
pub struct Values {
    given: BTreeMap<&'static str, Given>,
    /// Keys whose value was not admitted. Nothing more can be said about them.
    refused: BTreeSet<&'static str>,
}

impl Values {
    /// Merges the layers. `file` is the configuration file's name and content.
    pub fn merge(
        file: Option<(&Path, &str)>,
        variables: &[(OsString, OsString)],
        flags: Vec<(&'static Key, Given)>,
    ) -> (Self, Vec<Problem>) {
        let mut values = Self::default();
        let mut problems = Vec::new();
        let layers = [
            file.map(|(path, text)| yaml::read(path, text)).unwrap_or_default(),
            ours(variables),
            (flags, Vec::new()),
        ];
        for (layer, found) in layers {
            values.given.extend(layer.into_iter().map(|(key, given)| (key.name, given)));
            problems.extend(found);
        }
        values.unset_empty();
        let (fallback, found) = gotrues(variables, &values);
        values.given.extend(fallback);
        problems.extend(found);
        problems.extend(values.twins());
        problems.extend(values.take_inadmissible());
        (values, problems)
    }

    /// What was given for `key`.
    pub fn get(&self, key: &str) -> Option<&Given> {
        self.given.get(key)
    }

    /// Whether the value of `key` was given and not admitted.
    pub fn is_refused(&self, key: &str) -> bool {
        self.refused.contains(key)
    }

    /// What holds for `key`: what was given, else its default.
    pub fn text(&self, key: &Key) -> Option<&str> {
        match (self.get(key.name), key.default) {
            (Some(given), _) => Some(given.text.reveal()),
            (None, Default::Value(text)) => Some(text),
            (None, Default::Unset { .. }) => None,
        }
    }

    /// An empty text for a key without a default takes back what a lower layer gave.
    fn unset_empty(&mut self) {
        self.given.retain(|name, given| {
            let has_default = keys::key(name).is_some_and(|key| matches!(key.default, Default::Value(_)));
            has_default || !given.text.reveal().is_empty()
        });
    }

    /// Values that are given together with the file that holds them.
    fn twins(&self) -> Vec<Problem> {
        let both = |key: &'static Key| {
            let (twin, given) = (key.twin()?, self.get(key.name)?);
            let rule = Rule::ValueAndFile { other: twin.name, place: self.get(twin.name)?.place.clone() };
            Some(Problem::Contradiction { key: key.name, place: given.place.clone(), rule })
        };
        KEYS.iter().filter_map(both).collect()
    }

    /// Takes out what its key does not admit, so that the others can be judged without it.
    fn take_inadmissible(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in KEYS.iter() {
            let admitted = self.get(key.name).is_none_or(|given| key.kind.admits(given.text.reveal()));
            if admitted {
                continue;
            }
            if let Some(Given { place, .. }) = self.given.remove(key.name) {
                self.refused.insert(key.name);
                problems.push(Problem::Value {
                    key: key.name.to_owned(),
                    place,
                    expected: key.kind.expected(),
                });
            }
        }
        problems
    }
}

/// A layer and what is wrong with it.
type Layer = (Vec<(&'static Key, Given)>, Vec<Problem>);

/// The layer of our own variables.
fn ours(variables: &[(OsString, OsString)]) -> Layer {
    let (mut given, mut problems) = Layer::default();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if !name.starts_with(VARIABLE_PREFIX) || name == CONFIG_VARIABLE {
            continue;
        }
        let place = Place::Variable(name.clone().into_owned());
        match KEYS.iter().find(|key| key.variable() == name) {
            Some(key) => match given_by(key, value, place) {
                Ok(value) => given.push((key, value)),
                Err(problem) => problems.push(problem),
            },
            None if is_service_link(&name) => {}
            None => {
                let known = KEYS.iter().map(Key::variable).chain([CONFIG_VARIABLE.to_owned()]);
                problems.push(Problem::UnknownPlace { place, nearest: spelling::nearest(&name, known) });
            }
        }
    }
    (given, problems)
}

/// The layer of GoTrue's variables: below the file, and only where neither a value nor its file is given.
fn gotrues(
    variables: &[(OsString, OsString)],
    values: &Values,
) -> (Vec<(&'static str, Given)>, Vec<Problem>) {
    let (mut given, mut problems) = (Vec::new(), Vec::new());
    for key in KEYS.iter() {
        let explicit =
            [Some(key), key.twin()].into_iter().flatten().any(|key| values.get(key.name).is_some());
        let set =
            |variable: &&str| variables.iter().find(|(name, value)| name == *variable && !value.is_empty());
        let Some((name, value)) = key.gotrue.iter().find_map(set).filter(|_| !explicit) else {
            continue;
        };
        match given_by(key, value, Place::Variable(name.to_string_lossy().into_owned())) {
            // whatever else that variable is for is no reason for `serve` not to start
            Ok(value) if key.used_by == UsedBy::Audit && !key.kind.admits(value.text.reveal()) => {}
            Ok(value) => given.push((key.name, value)),
            Err(_) if key.used_by == UsedBy::Audit => {}
            Err(problem) => problems.push(problem),
        }
    }
    (given, problems)
}

/// A value from outside of the file, which must be text.
pub(crate) fn given_by(key: &'static Key, value: &OsStr, place: Place) -> Result<Given, Problem> {
    match value.to_str() {
        Some(text) => Ok(Given { text: Secret::new(text), place }),
        None => Err(Problem::Value {
            key: key.name.to_owned(),
            place,
            expected: format!("{}, in UTF-8", key.kind.expected()),
        }),
    }
}

/// Kubernetes puts such variables into every pod for a Service named `sidecar…`; they are not ours.
fn is_service_link(name: &str) -> bool {
    let port = name.split_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty()
            || rest.starts_with('_') && rest.trim_start_matches('_').starts_with(|c: char| c.is_ascii_digit())
    });
    name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn merged(file: &str, pairs: &[(&str, &str)]) -> (Values, Vec<String>) {
        let (values, problems) = Values::merge(Some((Path::new("f.yaml"), file)), &variables(pairs), vec![]);
        (values, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn gotrues_variables_are_below_the_file() {
        let gotrue = [("GOTRUE_JWT_SECRET", "theirs"), ("GOTRUE_JWT_KEYS", "")];
        let secret = |file: &str| {
            let (values, problems) = merged(file, &gotrue);
            assert_eq!(problems, Vec::<String>::new());
            assert!(values.get("jwt.keys").is_none(), "an empty variable is none");
            values.get("jwt.secret").map(|given| (given.text.reveal().to_owned(), given.place.to_string()))
        };
        assert_eq!(secret(""), Some(("theirs".into(), "GOTRUE_JWT_SECRET".into())));
        assert_eq!(secret("jwt: {secret: ours}"), Some(("ours".into(), "f.yaml:1".into())));
        assert_eq!(secret("jwt: {secret_file: /run/ours}"), None, "a file counts as given");
    }

    #[test]
    fn an_empty_variable_takes_the_files_value_back() {
        let file = "store: {url: 'redis://a'}\npath_prefix: /auth\nlog: {level: warn}";
        let (values, problems) = merged(file, &[("SIDECAR_STORE_URL", ""), ("SIDECAR_PATH_PREFIX", "")]);
        assert_eq!(problems, Vec::<String>::new());
        assert!(values.get("store.url").is_none());
        assert_eq!(values.get("path_prefix").map(|given| given.text.reveal()), Some(""));
        let (_, problems) = merged(file, &[("SIDECAR_LOG_LEVEL", "")]);
        assert_eq!(problems.len(), 1, "a level cannot be nothing: {problems:?}");
    }

    #[test]
    fn an_unknown_variable_is_a_problem_with_a_suggestion() {
        let (_, problems) =
            merged("", &[("SIDECAR_STORE_TIMOUT", "canary"), ("SIDECAR_X", "canary"), ("PATH", "x")]);
        assert_eq!(
            problems,
            [
                "SIDECAR_STORE_TIMOUT: expected the name of a key; did you mean SIDECAR_STORE_TIMEOUT?",
                "SIDECAR_X: expected the name of a key",
            ]
        );
    }

    #[test]
    fn a_kubernetes_service_named_sidecar_is_no_problem() {
        let links = [
            "SIDECAR_SERVICE_HOST",
            "SIDECAR_SERVICE_PORT",
            "SIDECAR_SERVICE_PORT_HTTP",
            "SIDECAR_PORT",
            "SIDECAR_PORT_9999_TCP",
            "SIDECAR_PORT_9999_TCP_ADDR",
            "SIDECAR_METRICS_SERVICE_HOST",
        ];
        let (_, problems) = merged("", &links.map(|name| (name, "tcp://10.0.0.1:9999")));
        assert_eq!(problems, Vec::<String>::new());
        for key in KEYS.iter() {
            assert!(!is_service_link(&key.variable()), "{}", key.name);
        }
    }

    #[test]
    fn a_variable_must_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(vec![0xff, b'c']);
        let (_, problems) = Values::merge(None, &[("SIDECAR_STORE_PASSWORD".into(), value)], vec![]);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, ["store.password (SIDECAR_STORE_PASSWORD): expected some text, in UTF-8"]);
    }

    #[test]
    fn a_value_and_its_file_are_one_too_many_whatever_their_layers() {
        let (_, problems) = merged("store:\n  url_file: /a", &[("SIDECAR_STORE_URL", "redis://canary")]);
        assert_eq!(
            problems,
            [
                "store.url (SIDECAR_STORE_URL): given together with store.url_file (f.yaml:2); expected only one of them"
            ]
        );
    }
}
