//! What the prose says is there is there: generated tables, commands, files, headings, endpoints.

use std::collections::BTreeSet;

use gotrue_sidecar::{
    config::reference,
    error, metrics,
    route::Route,
    session::{Reason, Unrecorded},
};

use crate::support::documents::{assert_in_readme, is_there, read, sources};

const PAGES: [&str; 13] = [
    "README.md",
    "docs/architecture.md",
    "docs/audit.md",
    "docs/check.md",
    "docs/limits.md",
    "docs/mirror.md",
    "docs/redis.md",
    "docs/outage.md",
    "k8s/README.md",
    "docs/session-api.md",
    "docs/security.md",
    "docs/gateways/README.md",
    "docs/faults.md",
];

/// One test, because each of them may write the file.
#[test]
fn the_readme_has_the_tables_of_the_code() {
    assert_in_readme("keys", &reference::table());
    assert_in_readme("metrics", &metrics::table());
    assert_in_readme("statuses", &error::table());
}

#[test]
fn the_readme_begins_with_commands_that_the_makefile_has() {
    let (readme, makefile) = (read("README.md"), read("Makefile"));
    let (_, rest) = readme.split_once("```sh\n").unwrap();
    let (first, _) = rest.split_once("```").unwrap();
    assert_eq!(first, "make demo\nmake test\n");
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(':')).map(|it| it.0).collect();
    let named = code(&readme).into_iter().filter_map(|text| text.strip_prefix("make "));
    for target in named.chain(["demo", "test"]).filter_map(|text| text.split(' ').next()) {
        assert!(targets.contains(target), "make {target}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    for page in PAGES {
        let text = read(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) =
                link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.to_owned() } else { beside(page, path) };
            assert!(is_there(&target), "{page}: {link}");
            if let Some(anchor) = anchor {
                assert!(anchors(&read(&target)).contains(anchor), "{page}: {link}");
            }
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    for page in PAGES {
        let text = read(page);
        for path in code(&text).into_iter().filter_map(|text| text.split([' ', ':']).next()) {
            let path = if path.starts_with("../") { beside(page, path) } else { path.to_owned() };
            let Some((folder, rest)) = path.split_once('/') else { continue };
            let ours = !folder.is_empty() && folder != "target" && is_there(folder) && !rest.contains('*');
            assert!(!ours || is_there(&path), "{page}: {path}");
        }
    }
}

/// Threats have defences, and defences have tests.
#[test]
fn every_defence_has_a_test_that_is_there() {
    let mut tests = BTreeSet::new();
    let mut folders = vec!["src".to_owned(), "tests/it".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap()
        {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(name);
            } else if entry.path().extension().is_some_and(|it| it == "rs") {
                let names = read(&name);
                tests.extend(
                    names.split("fn ").skip(1).filter_map(|it| it.split('(').next()).map(str::to_owned),
                );
            }
        }
    }
    let page = read("docs/security.md");
    let rows: Vec<_> =
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat")).collect();
    assert!(!rows.is_empty());
    for row in rows {
        let named = code(row.rsplit('|').nth(1).unwrap());
        assert!(!named.is_empty(), "no test: {row}");
        for name in named {
            // what no Rust test can look at, a step of CI does
            let is_step = name.starts_with(".ci/") && is_there(name);
            assert!(tests.contains(name) || is_step, "no test is called {name}");
        }
    }
}

#[test]
fn the_page_about_the_mirror_knows_every_endpoint_reason_and_difference() {
    let page = read("docs/mirror.md");
    let known: BTreeSet<&str> = code(&page).into_iter().flat_map(|text| text.split([' ', '?'])).collect();
    let routes = Route::ALL.iter().map(|(route, _)| route.template()).filter(|name| *name != "other");
    let reasons = Reason::ALL.into_iter().map(Reason::as_str);
    let causes = Unrecorded::ALL.into_iter().map(Unrecorded::as_str);
    for name in routes.chain(reasons).chain(causes) {
        assert!(known.contains(name), "docs/mirror.md says nothing of {name}");
    }
    let rules = read("tests/it/decisions/rules.rs");
    let (_, rest) = rules.split_once("enum Rule {\n").unwrap();
    let (variants, _) = rest.split_once("\n}").unwrap();
    for name in variants.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        assert!(known.contains(name.trim_end_matches(',')), "docs/mirror.md says nothing of {name}");
    }
}

/// Of each table that has such a column, every row names a test, and every test that is named is there.
#[test]
fn the_page_about_the_mirror_names_tests_that_are_there() {
    let page = read("docs/mirror.md");
    let sources = ["tests/it", "src"].map(sources).concat();
    let (mut named, mut lists_tests) = (0, false);
    for row in page.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, .., last, ""] = cells[..] else {
            lists_tests = false;
            continue;
        };
        if last == "tests" {
            lists_tests = true;
        } else if lists_tests && !last.starts_with("--") {
            let tests = code(last);
            assert!(!tests.is_empty(), "no test: {row}");
            for test in tests {
                assert!(sources.contains(&format!("fn {test}()")), "there is no test {test}");
                named += 1;
            }
        }
    }
    assert!(named > 50, "the tables have lost their tests");
}

/// What stands between backticks, within one line and outside of blocks.
fn code(text: &str) -> Vec<&str> {
    let mut inside = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// A path as seen from the page that links to it.
fn beside(page: &str, path: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors that GitHub makes of a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let letter = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then(|| c.to_ascii_lowercase()),
    };
    headings.map(|line| line.trim_start_matches('#').trim().chars().filter_map(letter).collect()).collect()
}
