//! The table of keys as text: `sidecar.yaml`, the README's table, and the effective configuration.

use std::fmt::Write as _;

use super::{
    keys::{Default, KEYS, Key},
    kind::Kind,
    parse,
    source::Values,
    store_url,
};

/// The head of `sidecar.yaml`.
const HEAD: &str = "\
# Every key of gotrue-sidecar at its default; keys without one are commented out, with an example.
#
# A key can also be given as a flag and as an environment variable: store.key_prefix is
# --store-key-prefix and SIDECAR_STORE_KEY_PREFIX. Flags win over the environment, the environment over
# this file. Lists are separated by commas there. An empty value for a key without a default unsets it.
#
# Read from --config or SIDECAR_CONFIG, else from ./sidecar.yaml if it is there.
# Written from src/config/keys/ by `UPDATE_DOCS=1 cargo test --test it config`.
";

/// Width of a comment's text.
const WIDTH: usize = 100;

/// `sidecar.yaml`: every key with its help, what it expects, and its default.
pub fn yaml() -> String {
    layout(HEAD, |key, indent| {
        let mut text = String::new();
        for line in [help(key), expectation(key)].iter().flat_map(|text| wrapped(text, WIDTH)) {
            let _ = writeln!(text, "{indent}# {line}");
        }
        let name = key.section().1;
        let _ = match key.default {
            Default::Value(value) => writeln!(text, "{indent}{name}: {}", scalar(key, value)),
            Default::Unset { example, .. } => writeln!(text, "{indent}#{name}: {}", scalar(key, example)),
        };
        text
    })
}

/// The README's table of keys, in Markdown.
pub fn table() -> String {
    let mut text = "| key | default | expects | |\n|---|---|---|---|\n".to_owned();
    for key in KEYS.iter() {
        let default = match key.default {
            Default::Value("") => "empty".to_owned(),
            Default::Value(value) => format!("`{value}`"),
            Default::Unset { means, .. } => format!("unset: {means}"),
        };
        let cells = [key.kind.expected(), help(key)].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| `{}` | {default} | {} |", key.name, cells.join(" | "));
    }
    text
}

/// What `--help` says about a key.
pub fn flag_help(key: &Key) -> String {
    let default = match key.default {
        Default::Value("") => "empty",
        Default::Value(value) => value,
        Default::Unset { means, .. } => means,
    };
    let seen = if key.secret { " Visible to everyone who can list processes: prefer the _file." } else { "" };
    let expected = key.kind.expected();
    format!("{}{seen} Expects {expected}. [default: {default}] [env: {}]", key.help, key.variable())
}

/// What holds, as YAML with the places as comments. Secrets are hidden.
pub(super) fn effective(values: &Values) -> String {
    layout("", |key, indent| {
        let name = key.section().1;
        let place = values.get(key.name).map_or("default".to_owned(), |given| given.place.to_string());
        let place = place.replace(char::is_control, " ");
        match (values.text(key), key.default) {
            (Some(text), _) => {
                format!("{indent}{name}: {}  # {place}\n", scalar(key, &in_sight(key, text)))
            }
            (None, Default::Unset { means, .. }) => format!("{indent}#{name}: unset: {means}\n"),
            (None, Default::Value(_)) => String::new(),
        }
    })
}

/// The text of every key under its section.
fn layout(head: &str, entry: impl Fn(&Key, &str) -> String) -> String {
    let mut text = head.to_owned();
    let mut before = None;
    let spaced = !head.is_empty();
    for key in KEYS.iter() {
        let (section, _) = key.section();
        let opens = section.filter(|_| section != before);
        if spaced {
            text.push('\n');
        }
        if let Some(section) = opens {
            let _ = writeln!(text, "{section}:");
        }
        text.push_str(&entry(key, if section.is_some() { "  " } else { "" }));
        before = section;
    }
    text
}

/// What a value must be, and what happens without one.
fn expectation(key: &Key) -> String {
    let unset = match key.default {
        Default::Value(_) => String::new(),
        Default::Unset { means, .. } => format!(" Unset: {means}."),
    };
    format!("Expects {}.{unset}", key.kind.expected())
}

/// Help and whether changes are noticed.
fn help(key: &Key) -> String {
    let reloaded = if key.reloaded { " Read again when it changes." } else { "" };
    format!("{}{reloaded}", key.help)
}

/// A value as it may be shown.
fn in_sight(key: &Key, text: &str) -> String {
    match key.kind {
        Kind::StoreUrl => store_url::in_sight(text),
        _ if key.secret => "(secret)".to_owned(),
        _ => text.to_owned(),
    }
}

/// A value in YAML.
fn scalar(key: &Key, text: &str) -> String {
    if key.kind.is_list() {
        let items: Vec<String> = parse::list(text).map(quoted).collect();
        format!("[{}]", items.join(", "))
    } else if key.kind.is_plain() {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A text in YAML: in quotes unless every reader takes it for text without them.
fn quoted(text: &str) -> String {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte));
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let colons = text.ends_with(':') || text.contains("::");
    let word =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    let number = text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o");
    if letters && starts && !colons && !word && !number {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// `text` in lines of at most `width` letters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_where_yaml_would_read_something_else() {
        for text in ["gotrue", "0.0.0.0:9999", "http://127.0.0.1:9997", "/auth/v1", "10.0.0.0/8"] {
            assert_eq!(quoted(text), text);
        }
        for text in [
            "",
            "off",
            "No",
            "123",
            "1e3",
            "0x1f",
            "memory:",
            "[::]:9999",
            "::1",
            "a b",
            "#a",
            "- a",
            "\"",
            "a\nb",
        ] {
            assert_ne!(quoted(text), text);
            assert_eq!(serde_yaml::from_str::<String>(&quoted(text)).ok().as_deref(), Some(text), "{text}");
        }
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("abcdef g", 4), ["abcdef", "g"]);
    }
}
