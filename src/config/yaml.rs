//! The file as a layer: nested mappings with single values or lists, flattened to dotted keys.

use std::{fmt, path::Path};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    Secret,
    keys::{self, KEYS, Key},
    problem::{Place, Problem},
    source::Given,
    spelling,
};

/// What the file at `path` with the content `text` gives, and what is wrong with it.
pub(super) fn read(path: &Path, text: &str) -> (Vec<(&'static Key, Given)>, Vec<Problem>) {
    let mut layer = Layer { path, lines: lines_of_keys(text), given: Vec::new(), problems: Vec::new() };
    match serde_yaml::from_str(text) {
        Ok(Node::Null) => {}
        Ok(Node::Mapping(entries)) => layer.section(None, entries),
        Ok(_) => layer.problems.push(Problem::Yaml {
            path: path.to_owned(),
            message: "the top is not a mapping of keys".to_owned(),
        }),
        Err(error) => {
            layer.problems.push(Problem::Yaml { path: path.to_owned(), message: error.to_string() });
        }
    }
    (layer.given, layer.problems)
}

/// The layer while it is read.
struct Layer<'a> {
    path: &'a Path,
    lines: Vec<(String, usize)>,
    given: Vec<(&'static Key, Given)>,
    problems: Vec<Problem>,
}

impl Layer<'_> {
    /// Reads one mapping: the top one, or that of a section.
    fn section(&mut self, section: Option<&str>, entries: Vec<(String, Node)>) {
        let mut seen: Vec<String> = Vec::new();
        for (name, node) in entries {
            let name = section.map_or(name.clone(), |section| format!("{section}.{name}"));
            let before = seen.iter().filter(|other| **other == name).count();
            let place = self.place(&name, before);
            seen.push(name.clone());
            if before > 0 {
                self.problems.push(Problem::Twice { key: name, place });
            } else if let Some(key) = keys::key(&name) {
                self.value(key, node, place);
            } else if section.is_none() && keys::is_section(&name) {
                self.children(name, node, place);
            } else {
                let known = KEYS.iter().flat_map(|key| [Some(key.name), key.section().0]).flatten();
                let nearest = spelling::nearest(&name, known.map(str::to_owned));
                self.problems.push(Problem::UnknownKey { name, place, nearest });
            }
        }
    }

    /// Reads what stands under a section's name.
    fn children(&mut self, section: String, node: Node, place: Place) {
        match node {
            Node::Null => {}
            Node::Mapping(entries) => self.section(Some(&section), entries),
            Node::Text(_) | Node::Plain(_) | Node::List(_) => {
                let expected = "a mapping of keys".to_owned();
                self.problems.push(Problem::Value { key: section, place, expected });
            }
        }
    }

    /// Reads a key's value.
    fn value(&mut self, key: &'static Key, node: Node, place: Place) {
        let text = match node {
            Node::Null => Ok(String::new()),
            Node::Text(text) => Ok(text),
            Node::Plain(text) if key.kind.is_plain() => Ok(text),
            Node::Plain(_) => Err(format!("{}, in quotes", key.kind.expected())),
            Node::List(items) if key.kind.is_list() => {
                let items: Option<Vec<String>> = items.into_iter().map(Node::into_item).collect();
                items.map(|items| items.join(",")).ok_or_else(|| key.kind.expected())
            }
            Node::List(_) | Node::Mapping(_) => Err(format!("one value: {}", key.kind.expected())),
        };
        match text {
            Ok(text) => self.given.push((key, Given { text: Secret::new(text), place })),
            Err(expected) => self.problems.push(Problem::Value { key: key.name.to_owned(), place, expected }),
        }
    }

    /// The place of a key that was read `before` times already; of its section if it has no line of its own.
    fn place(&self, name: &str, before: usize) -> Place {
        let line = |name: &str, skip| {
            self.lines.iter().filter(|(other, _)| other == name).nth(skip).map(|(_, line)| *line)
        };
        let section = || name.split_once('.').and_then(|(section, _)| line(section, 0));
        Place::File { path: self.path.to_owned(), line: line(name, before).or_else(section) }
    }
}

/// YAML with duplicates and without types that we have no use for.
enum Node {
    Null,
    Text(String),
    /// A number or a boolean.
    Plain(String),
    List(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// An item of a list: text in which a comma would not make two of it.
    fn into_item(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.contains(',') => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            mapping.push(entry);
        }
        Ok(Node::Mapping(mapping))
    }
}

/// Where the keys of block mappings stand: dotted name and line, in the order of the text. The YAML parser
/// keeps no positions of values; this sees enough of the text for a message.
fn lines_of_keys(text: &str) -> Vec<(String, usize)> {
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let Some((indent, name)) = key_of_line(line) else {
            continue;
        };
        while open.last().is_some_and(|(outer, _)| *outer >= indent) {
            open.pop();
        }
        open.push((indent, name));
        let names: Vec<&str> = open.iter().map(|(_, name)| *name).collect();
        found.push((names.join("."), number));
    }
    found
}

/// `  name: …` → its indentation and name.
fn key_of_line(line: &str) -> Option<(usize, &str)> {
    let content = line.trim_start_matches(' ');
    let (name, rest) = content.split_once(':')?;
    let name = name.trim_end().trim_matches(['"', '\'']);
    let named = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    let ended = rest.is_empty() || rest.starts_with([' ', '\t']);
    (named && ended).then_some((line.len() - content.len(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layer's values and problems, as text.
    fn layer(text: &str) -> (Vec<String>, Vec<String>) {
        let (given, problems) = read(Path::new("f.yaml"), text);
        let given = given
            .iter()
            .map(|(key, given)| format!("{}={} {}", key.name, given.text.reveal(), given.place))
            .collect();
        (given, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nested_keys_have_dotted_names_and_lines() {
        let text =
            "# a comment\nlisten: 127.0.0.1:1\n\nstore:\n  timeout: 5s # soon\n  'key_prefix': \"a: b\"\n";
        let (given, problems) = layer(text);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            given,
            ["listen=127.0.0.1:1 f.yaml:2", "store.timeout=5s f.yaml:5", "store.key_prefix=a: b f.yaml:6"]
        );
    }

    #[test]
    fn an_empty_file_or_section_gives_nothing() {
        for text in
            ["", "# nothing\n", "---\n", "~", "tls:\n", "tls: {}\n", "store: ~\ntls:\n  # cert_file: x\n"]
        {
            assert_eq!(layer(text), (vec![], vec![]), "{text}");
        }
    }

    #[test]
    fn lists_are_written_as_lists_or_with_commas() {
        for text in [
            "forwarded:\n  trusted_proxies: [10.0.0.0/8, 192.168.0.0/16]\n",
            "forwarded:\n  trusted_proxies:\n    - 10.0.0.0/8\n    - 192.168.0.0/16\n",
            "forwarded:\n  trusted_proxies: 10.0.0.0/8,192.168.0.0/16\n",
            "forwarded: {trusted_proxies: ['10.0.0.0/8', '192.168.0.0/16']}\n",
        ] {
            let (given, problems) = layer(text);
            assert_eq!(problems, Vec::<String>::new(), "{text}");
            assert_eq!(given.len(), 1);
            assert!(given[0].starts_with("forwarded.trusted_proxies=10.0.0.0/8,192.168.0.0/16 f.yaml:"));
        }
    }

    #[test]
    fn numbers_and_booleans_are_plain_only_where_they_are_meant() {
        let (given, problems) =
            layer("limits: {streams: 7}\nlog: {access: false}\nstore: {password: 0x1f}\n");
        assert_eq!(given, ["limits.streams=7 f.yaml:1", "log.access=false f.yaml:2"]);
        assert_eq!(problems, ["store.password (f.yaml:3): expected some text, in quotes"]);
    }

    #[test]
    fn wrong_shapes_name_key_line_and_expectation() {
        let table = [
            ("store: canary\n", "store (f.yaml:1): expected a mapping of keys"),
            ("store: [canary]\n", "store (f.yaml:1): expected a mapping of keys"),
            (
                "store:\n  key_prefix:\n    canary: 1\n",
                "store.key_prefix (f.yaml:2): expected one value: 1 to 64",
            ),
            ("log:\n  level: [canary]\n", "log.level (f.yaml:2): expected one value: one of off, error"),
            (
                "readiness:\n  require: [[canary]]\n",
                "readiness.require (f.yaml:2): expected a list of any of",
            ),
            ("listen: 1.2.3.4:5\nlisten: 1.2.3.4:6\n", "listen (f.yaml:2): given twice; expected once"),
            ("tls:\nlog:\ntls:\n", "tls (f.yaml:3): given twice; expected once"),
            ("stoer:\n  url: canary\n", "stoer (f.yaml:1): unknown key; did you mean store?"),
            (
                "store:\n  timout: canary\n",
                "store.timout (f.yaml:2): unknown key; did you mean store.timeout?",
            ),
            ("cookie:\n  enabled: true\n", "cookie (f.yaml:1): unknown key"),
            (
                "store.timeout.x: canary\n",
                "store.timeout.x (f.yaml:1): unknown key; did you mean store.timeout?",
            ),
        ];
        for (text, expected) in table {
            let (given, problems) = layer(text);
            assert_eq!(problems.len(), 1, "{text}{problems:?} {given:?}");
            assert!(problems[0].starts_with(expected), "{}", problems[0]);
            assert!(!problems[0].contains("canary"), "{}", problems[0]);
        }
    }

    #[test]
    fn malformed_yaml_is_reported_where_the_parser_stopped() {
        for text in
            ["a: [", "a: b: c", "\ta: b", "a: 'b", "- a\nb: c", "%", "a: *b", "a: b\n---\na: c\n", "a: !x y"]
        {
            let (given, problems) = layer(text);
            assert!(given.is_empty(), "{text}");
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].starts_with("f.yaml: expected YAML: "), "{}", problems[0]);
        }
        let (_, problems) = layer("log:\n  level: [info\n");
        assert!(problems[0].contains("line"), "{}", problems[0]);
    }

    #[test]
    fn a_text_or_a_list_is_no_configuration() {
        for text in ["canary", "[canary]", "12"] {
            let (_, problems) = layer(text);
            assert_eq!(problems, ["f.yaml: expected YAML: the top is not a mapping of keys"]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}") {
            layer(&text);
        }

        #[test]
        fn no_text_of_yaml_marks_makes_it_panic(text in "[a-c:\\-\\[\\]{},#&*!|>'\"% \n\t]{0,80}") {
            layer(&text);
        }
    }
}
