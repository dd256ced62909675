//! As much of `OpenAPI` 3.1 and JSON Schema as `docs/session-api.yaml` uses, to hold answers against it. What it does
//! not know fails, so that the file cannot promise what nobody looks at.

use std::{cell::RefCell, collections::BTreeSet};

use gotrue_sidecar::{rfc3339, session::UserId};
use http::Method;
use serde_json::Value;

use super::{documents, http::Answer};

/// A description of an API, and what of it was seen so far.
pub(crate) struct Description {
    root: Value,
    answers: RefCell<BTreeSet<String>>,
    /// Properties, as `Session.id`, that were there and not null.
    properties: RefCell<BTreeSet<String>>,
}

impl Description {
    pub(crate) fn of(file: &str) -> Self {
        let root: Value = serde_yaml::from_str(&documents::read(file)).unwrap();
        assert_eq!(root["openapi"], "3.1.0");
        Self { root, answers: RefCell::default(), properties: RefCell::default() }
    }

    /// Holds an answer against what is said of that path (a template), method and status.
    pub(crate) fn check(&self, path: &str, method: &Method, answer: &Answer) {
        let status = answer.status.as_str();
        let name = format!("{method} {path} {status}");
        let operation = &self.root["paths"][path][method.as_str().to_ascii_lowercase()];
        assert!(operation.is_object(), "no {method} {path}");
        let response = self.resolved(&operation["responses"][status]);
        assert!(response.is_object(), "{name} is not described: {answer:?}");
        for (header, said) in response["headers"].as_object().into_iter().flatten() {
            let said = self.resolved(said);
            let value = answer.header(&header.to_ascii_lowercase());
            assert!(value.is_some() || said["required"] != true, "{name} has no {header}");
            if let Some(value) = value {
                let value = match said["schema"]["type"].as_str() {
                    Some("integer") => value.parse::<u64>().unwrap().into(),
                    _ => Value::from(value),
                };
                self.fits(&value, &said["schema"], &format!("{name} {header}"));
            }
        }
        match response["content"].as_object() {
            None => assert!(answer.body.is_empty(), "{name} has a body"),
            Some(content) => {
                let kind = answer.header("content-type").unwrap_or_default();
                let said = content.get(kind).unwrap_or_else(|| panic!("{name} is {kind}"));
                self.fits(&answer.json(), &said["schema"], &name);
            }
        }
        self.answers.borrow_mut().insert(name);
    }

    /// What is described and was never seen.
    pub(crate) fn unseen(&self) -> Vec<String> {
        let mut unseen = Vec::new();
        for (path, operations) in self.root["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    let name = format!("{} {path} {status}", method.to_ascii_uppercase());
                    if !self.answers.borrow().contains(&name) {
                        unseen.push(name);
                    }
                }
            }
        }
        for (schema, said) in self.root["components"]["schemas"].as_object().unwrap() {
            for property in said["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
                let name = format!("{schema}.{property}");
                if !self.properties.borrow().contains(&name) {
                    unseen.push(name);
                }
            }
        }
        unseen
    }

    /// The parameters of an operation, by name.
    pub(crate) fn parameters(&self, path: &str, method: &str) -> BTreeSet<String> {
        let parameters = self.root["paths"][path][method]["parameters"].as_array();
        let names = parameters.into_iter().flatten().map(|it| self.resolved(it)["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }

    /// Every path and its methods, lower case.
    pub(crate) fn operations(&self) -> Vec<(&str, &str)> {
        let paths = self.root["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, it)| {
                it.as_object().unwrap().keys().map(move |method| (path.as_str(), method.as_str()))
            })
            .collect()
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => {
                let target = self.root.pointer(place.strip_prefix('#').unwrap());
                target.unwrap_or_else(|| panic!("{place} leads nowhere"))
            }
            None => value,
        }
    }

    fn fits(&self, value: &Value, schema: &Value, place: &str) {
        let wrong = self.wrong(value, schema, "");
        assert_eq!(wrong, None, "{place}: {value}");
    }

    /// What is wrong with a value; notes the properties it has. `name` is the schema's.
    fn wrong(&self, value: &Value, schema: &Value, name: &str) -> Option<String> {
        if let Some(place) = schema["$ref"].as_str() {
            let name = place.rsplit('/').next().unwrap();
            return self.wrong(value, self.resolved(schema), name);
        }
        for keyword in schema.as_object().unwrap().keys() {
            assert!(KNOWN.contains(&keyword.as_str()), "{keyword} is not understood");
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fitting = choices.iter().filter(|choice| self.wrong(value, choice, "").is_none()).count();
            return (fitting != 1).then(|| format!("fits {fitting} of them: {schema}"));
        }
        let types: Vec<_> = match &schema["type"] {
            Value::Array(types) => types.iter().map(|it| it.as_str().unwrap()).collect(),
            one => vec![one.as_str().unwrap()],
        };
        if !types.contains(&type_of(value)) {
            return Some(format!("{value} is none of {types:?}"));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            return Some(format!("{value} is none of {}", schema["enum"]));
        }
        if schema["minimum"].as_u64().is_some_and(|least| value.as_u64().unwrap_or(0) < least) {
            return Some(format!("{value} is below {}", schema["minimum"]));
        }
        match value {
            Value::String(text) => wrong_format(text, schema["format"].as_str()),
            Value::Array(items) => items.iter().find_map(|item| self.wrong(item, &schema["items"], "")),
            Value::Object(_) => self.wrong_object(value, schema, name),
            _ => None,
        }
    }

    fn wrong_object(&self, value: &Value, schema: &Value, name: &str) -> Option<String> {
        let (object, said) = (value.as_object().unwrap(), schema["properties"].as_object().unwrap());
        let required = schema["required"].as_array().unwrap();
        if let Some(absent) = required.iter().find(|key| !object.contains_key(key.as_str().unwrap())) {
            return Some(format!("there is no {absent}"));
        }
        assert_eq!(schema["additionalProperties"], false, "{name} is open");
        for (key, value) in object {
            let Some(schema) = said.get(key) else { return Some(format!("{key} is not described")) };
            if let Some(wrong) = self.wrong(value, schema, "") {
                return Some(format!("{key}: {wrong}"));
            }
        }
        let seen = object.iter().filter(|(_, value)| !value.is_null());
        self.properties.borrow_mut().extend(seen.map(|(key, _)| format!("{name}.{key}")));
        None
    }
}

const KNOWN: [&str; 11] = [
    "type",
    "enum",
    "minimum",
    "format",
    "items",
    "properties",
    "required",
    "additionalProperties",
    "oneOf",
    "description",
    "default",
];

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_format(text: &str, format: Option<&str>) -> Option<String> {
    let fits = match format {
        None => true,
        Some("uuid") => UserId::parse(text).is_some(),
        Some("date-time") => rfc3339::millis(text).is_some(),
        Some(other) => panic!("the format {other} is not understood"),
    };
    (!fits).then(|| format!("{text} is no {}", format.unwrap_or_default()))
}
