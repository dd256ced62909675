//! The files of `docs/gateways/` themselves.

use crate::support::{
    documents::read,
    gateway::{KINDS, MARK},
};

/// So that the tests run what users copy: an address elsewhere would be replaced nowhere, and say nothing to users.
#[test]
fn addresses_stand_in_marked_lines_only() {
    for kind in &KINDS {
        for file in kind.files {
            let text = read(&format!("docs/gateways/{file}"));
            for line in text.lines().filter(|line| !line.ends_with(MARK)) {
                let code = line.trim_start();
                if code.starts_with('#') || code.starts_with("--") {
                    continue;
                }
                for address in ["127.0.0.1", "0.0.0.0", "9464", "9465", "3000", "8000"] {
                    assert!(!line.contains(address), "{file}: {line}");
                }
            }
        }
        assert!(read(&format!("docs/gateways/{}", kind.files[0])).contains(MARK), "{}", kind.name);
    }
}

/// A gateway that does not know one of them lets the client say it.
#[test]
fn every_file_knows_every_identity_header() {
    for kind in &KINDS {
        let text: String = kind.files.iter().map(|file| read(&format!("docs/gateways/{file}"))).collect();
        for name in super::IDENTITY {
            assert!(text.to_lowercase().contains(&name.to_lowercase()), "{}: {name}", kind.name);
        }
    }
}
