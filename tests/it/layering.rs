//! Dependencies between the modules of `src` point one way: down [`ORDER`], never up, so never in a circle.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every module of the library. Each may use those that stand before it.
const ORDER: [&str; 42] = [
    // words: types and pure functions
    "session",
    "scope",
    "rfc3339",
    "request_id",
    "headers",
    "target",
    "config",
    "clock",
    "route",
    "token",
    "keys",
    "mirror",
    // tools: one thing each
    "cache",
    "metrics",
    "telemetry",
    "access",
    "audit",
    "readiness",
    "shutdown",
    "reload",
    "tls",
    "wire",
    // ways out: the store and GoTrue
    "store",
    "breaker",
    "replay",
    "upstream",
    // the audit
    "drift",
    // a request
    "exchange",
    "body",
    "error",
    "jwks",
    "sessions",
    "session_api",
    "check",
    "proxy",
    "listener",
    // the process
    "admin",
    "worker",
    "app",
    // the command line
    "operator",
    "cli",
    "probe",
];

#[test]
fn no_module_uses_one_that_comes_after_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (place, module) in ORDER.iter().enumerate() {
        for file in files(&source, module) {
            let text = fs::read_to_string(&file).unwrap();
            for used in modules_used(&text) {
                if !ORDER[..=place].contains(&used.as_str()) {
                    wrong.push(format!("`{module}` uses `{used}`, which comes after it: {}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_names_every_module() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let library = fs::read_to_string(source).unwrap();
    let declared: BTreeSet<&str> =
        library.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect();
    assert_eq!(declared, BTreeSet::from(ORDER));
}

#[test]
fn uses_are_found_however_they_are_written() {
    let text = "use crate::{\n    a::{self, b},\n    c::{d::{e, f}, g},\n    h,\n};\nuse crate::i;\n\
                fn j() -> crate::k::L { crate::m::n() }\n// crate::o\npub(crate) struct P;\n\
                #[cfg(test)]\nmod tests {\n    use crate::q;\n}\n";
    assert_eq!(modules_used(text).into_iter().collect::<String>(), "achikm");
}

/// What a module is written in: its file and its folder, without those that are tests.
fn files(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut found = vec![source.join(module).with_extension("rs")];
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue }; // most have none
        for path in entries.map(|entry| entry.unwrap().path()) {
            match path.extension() {
                _ if path.file_stem().is_some_and(|stem| stem == "tests") => {}
                None => folders.push(path),
                Some(extension) if extension == "rs" => found.push(path),
                Some(_) => {}
            }
        }
    }
    found
}

/// The modules of the crate that a text names, outside comments and its tests.
fn modules_used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap()).collect();
    let code = lines.join("\n");
    let after = |start: &'static str| code.split(start).skip(1);
    let grouped = after("crate::{").flat_map(heads);
    let single = after("crate::").map(word).filter(|word| !word.is_empty());
    grouped.chain(single).map(str::to_owned).collect()
}

/// The first words of a brace's items, up to where the brace closes.
fn heads(group: &str) -> Vec<&str> {
    let (mut depth, mut begins, mut found) = (1, true, Vec::new());
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => begins = true,
            _ if begins && sign.is_alphabetic() => {
                found.push(word(group.split_at(at).1));
                begins = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn word(text: &str) -> &str {
    text.split(|sign: char| !sign.is_alphanumeric() && sign != '_').next().unwrap()
}
