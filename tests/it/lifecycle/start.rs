//! What keeps it from starting is one clear line that names the key, and an exit code; never a panic.

use std::{fs, net::TcpListener};

use tokio::net::TcpSocket;

use super::*;
use crate::support::{
    issuer,
    process::{SOFT_LIMIT, run},
    sidecar::with_defaults,
};

/// Exit code and what it said.
fn refusal(flags: &[&str]) -> (Option<i32>, String) {
    let output = run(&with_defaults(flags));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

#[test]
fn what_cannot_be_used_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk");
    fs::write(&junk, "no certificate, no key, no JSON").unwrap();
    let junk = junk.display();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let table = [
        (1, "listen: ", vec![format!("--listen={taken}")]),
        (1, "admin.listen: ", vec![format!("--admin-listen={taken}")]),
        (1, "listen: ", vec!["--listen=192.0.2.1:9999".to_owned()]),
        (1, "tls.cert_file", vec![format!("--tls-cert-file={junk}"), format!("--tls-key-file={junk}")]),
        (2, "tls.key_file", vec![format!("--tls-cert-file={junk}"), "--tls-key-file=/nowhere".to_owned()]),
        (
            1,
            "store.ca_file",
            vec!["--store-url=rediss://127.0.0.1:1".to_owned(), format!("--store-ca-file={junk}")],
        ),
        (
            1,
            "upstream.ca_file",
            vec!["--upstream-url=https://127.0.0.1:1".to_owned(), format!("--upstream-ca-file={junk}")],
        ),
        (2, "jwt.secret_file", vec!["--jwt-secret-file=/nowhere".to_owned()]),
        (2, "jwt.keys_file", vec![format!("--jwt-keys-file={junk}")]),
        (
            2,
            "store.password_file",
            vec!["--store-url=redis://127.0.0.1:1".to_owned(), "--store-password-file=/".to_owned()],
        ),
        (2, "store.url_file", vec![format!("--store-url-file={junk}")]),
    ];
    for (code, key, flags) in table {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (ended, said) = refusal(&flags);
        assert_eq!(ended, Some(code), "{flags:?}: {said}");
        assert!(said.contains(key), "{flags:?}: {said}");
        if code == 1 {
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[tokio::test]
async fn a_port_is_not_shared_with_whoever_would_share_it() {
    let holder = TcpSocket::new_v4().unwrap();
    holder.set_reuseport(true).unwrap();
    holder.set_reuseaddr(true).unwrap();
    holder.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let holder = holder.listen(16).unwrap();
    let (code, said) = refusal(&[&format!("--listen={}", holder.local_addr().unwrap())]);
    assert_eq!(code, Some(1));
    assert!(said.contains("in use"), "{said}");
}

#[tokio::test]
async fn its_port_can_be_had_again_at_once() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut process = started(&upstream, &[]).await;
    assert_eq!(get(&format!("{}/user", process.url), &[]).await.status, 200);
    process.signal(rustix::process::Signal::TERM);
    process.ended().await;
    let listen = format!("--listen={}", process.address);
    let again = started(&upstream, &[&listen]).await;
    assert_eq!(get(&format!("{}/user", again.url), &[]).await.status, 200);
}

#[tokio::test]
async fn it_takes_all_the_open_files_that_it_may_have() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let process = started(&upstream, &[]).await;
    let limits = process.proc("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], SOFT_LIMIT, "{line}");
}
