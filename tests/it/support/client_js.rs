//! The official JavaScript client, and what it saw.

use std::process::Stdio;

use tokio::process::Command;

use super::gotrue::lite::live_folder;

/// What supabase-js saw in a day with the server at `url`, in words that are equal for equal servers:
/// `tests/live/client.mjs` says what it does and what is replaced.
pub(crate) async fn transcript(url: &str) -> String {
    let folder = live_folder();
    let output = Command::new(folder.join("node_modules/.bin/node"))
        .arg(folder.join("client.mjs"))
        .arg(url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "client.mjs {url}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
