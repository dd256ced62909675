//! `sidecar.yaml` and `--help` say what the table of keys says. `UPDATE_DOCS=1` writes the first anew.

use std::{env, fs, path::Path};

use gotrue_sidecar::{
    cli,
    config::{
        keys::{Default, KEYS, Key},
        reference,
    },
};

use super::Call;
use crate::support::documents;

/// The reference file, after it was written anew if that was asked for.
fn sidecar_yaml() -> String {
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("sidecar.yaml"), reference::yaml()).unwrap();
    }
    documents::read("sidecar.yaml")
}

#[test]
fn sidecar_yaml_is_what_the_table_says() {
    let text = sidecar_yaml();
    assert!(
        text == reference::yaml(),
        "sidecar.yaml is out of date: UPDATE_DOCS=1 cargo test --test it config"
    );
}

#[test]
fn sidecar_yaml_has_every_key_once_with_its_help_and_default() {
    let text = sidecar_yaml();
    let unwrapped = text.replace("\n  # ", " ").replace("\n# ", " ");
    for key in KEYS.iter() {
        let (section, name) = key.section();
        let indent = if section.is_some() { "  " } else { "" };
        let body = section.map_or(text.as_str(), |section| {
            let (_, body) = text.split_once(&format!("\n{section}:\n")).unwrap();
            body
        });
        let mark = if matches!(key.default, Default::Value(_)) { "" } else { "#" };
        let lines = body
            .lines()
            .take_while(|line| section.is_none() || line.is_empty() || line.starts_with(' '))
            .filter(|line| line.starts_with(&format!("{indent}{mark}{name}:")));
        assert_eq!(lines.count(), 1, "{}", key.name);
        assert!(unwrapped.contains(key.help), "{}", key.name);
    }
}

#[test]
fn sidecar_yaml_is_the_defaults() {
    let text = sidecar_yaml();
    let with = Call::with_file(&text).invocation();
    let without = Call::with_file("").invocation();
    assert_eq!(format!("{:?}", with.config), format!("{:?}", without.config));
}

#[test]
fn the_examples_in_sidecar_yaml_can_be_uncommented() {
    let text = sidecar_yaml();
    for key in KEYS.iter().filter(|key| matches!(key.default, Default::Unset { .. })) {
        let (section, name) = key.section();
        let indent = if section.is_some() { "  " } else { "" };
        let text = match section {
            Some(section) => {
                let (before, after) = text.split_once(&format!("\n{section}:\n")).unwrap();
                let after = after.replacen(&format!("{indent}#{name}:"), &format!("{indent}{name}:"), 1);
                format!("{before}\n{section}:\n{after}")
            }
            None => text.replacen(&format!("#{name}:"), &format!("{name}:"), 1),
        };
        let call = super::surroundings(Call::with_file(&text).arg("drain"), key);
        call.invocation();
    }
}

#[test]
fn flags_are_the_table() {
    cli::arguments().debug_assert();
    let mut flags: Vec<String> = cli::arguments()
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"))
        .collect();
    flags.retain(|flag| !["--config", "--print-config", "--help", "--version"].contains(&flag.as_str()));
    let keys: Vec<String> = KEYS.iter().map(Key::flag).collect();
    assert_eq!(flags, keys);
}

#[test]
fn help_names_flag_variable_expectation_and_default() {
    let help = cli::arguments().term_width(10_000).render_long_help().to_string();
    for key in KEYS.iter() {
        let default = match key.default {
            Default::Value("") => "empty",
            Default::Value(text) => text,
            Default::Unset { means, .. } => means,
        };
        for part in [key.flag(), key.variable(), key.kind.expected(), format!("[default: {default}]")] {
            assert!(help.contains(&part), "{part}");
        }
    }
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let call =
        Call::with_file("listen: '[::1]:7000'\nforwarded: {trusted_proxies: [10.0.0.0/8, 'fd00::/8']}\n")
            .args(["--log-level", "off", "--store-url", "rediss://redis/3", "--store-key-prefix", "2024"])
            .env("SIDECAR_DRAIN_DELAY", "0");
    let first = call.arg("--print-config").invocation();
    let second = Call::with_file(first.printed.as_deref().unwrap()).invocation();
    assert_eq!(format!("{:?}", first.config), format!("{:?}", second.config));
}
