//! The project's prose, as far as it can be compared with the code.

use std::{env, fs, path::Path};

/// A file of the repository.
pub(crate) fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether `name` is there, in the repository.
pub(crate) fn is_there(name: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).exists()
}

/// All Rust files below a folder of the repository, as one text.
pub(crate) fn sources(folder: &str) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            text += &sources(&name);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            text += &read(&name);
        }
    }
    text
}

/// [`assert_in_page`] for README.md.
pub(crate) fn assert_in_readme(name: &str, expected: &str) {
    assert_in_page("README.md", "docs", name, expected);
}

/// Fails unless `expected` stands in a page between the markers `<!-- name -->` and `<!-- /name -->`. With
/// `UPDATE_DOCS=1` it is put there instead; `tests` are the tests that do so.
pub(crate) fn assert_in_page(page: &str, tests: &str, name: &str, expected: &str) {
    if env::var_os("UPDATE_DOCS").is_some() {
        put_between(page, name, expected);
    } else {
        let there = between(page, name) == expected;
        assert!(there, "{page} is out of date: UPDATE_DOCS=1 cargo test --test it {tests}");
    }
}

/// What stands in a page between the markers.
pub(crate) fn between(page: &str, name: &str) -> String {
    parts(&read(page), page, name)[1].clone()
}

/// Puts a text there.
pub(crate) fn put_between(page: &str, name: &str, text: &str) {
    let [before, _, after] = parts(&read(page), page, name);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(page), before + text + &after).unwrap();
}

/// A page up to the first marker, between both, and from the second on.
fn parts(text: &str, page: &str, name: &str) -> [String; 3] {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (between, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    [before.to_owned() + &begin, between.to_owned(), end + after]
}
