//! The official JavaScript client, and what it saw.

use std::process::Stdio;

use tokio::process::Command;

use super::gotrue::{Kind, lite::live_folder};

/// What supabase-js saw in a day with the server at `url`, in words that are equal for equal servers:
/// `tests/live/client.mjs` says what it does and what is replaced.
pub(crate) async fn transcript(url: &str) -> String {
    run("client.mjs", url).await
}

/// What a script in `tests/live` prints that has supabase-js talk to the server at `url`.
pub(crate) async fn run(script: &str, url: &str) -> String {
    let folder = live_folder();
    let output = Command::new(folder.join("node_modules/.bin/node"))
        .arg(folder.join(script))
        .arg(url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{script} {url}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a refusal of the sidecar's own looks like to supabase-js, which asks for the newer form; and to whoever
/// knows but the older one.
const REFUSED: [(&str, &str); 2] = [
    (
        r#"
          "vary": "Origin",
          "x-sb-error-code": "session_not_found",
          "x-supabase-api-version": "2024-01-01""#,
        r#"
          "x-sb-error-code": "session_not_found""#,
    ),
    (
        r#"
          "code": "session_not_found",
          "message": ""#,
        r#"
          "code": 403,
          "error_code": "session_not_found",
          "msg": ""#,
    ),
];

/// The day through a sidecar that enforces is the day without one. Its refusals have the form that GoTrue would have
/// given them; a server that knows but one form would not.
pub(crate) fn assert_same_but_for_refusals(kind: Kind, through: &str, direct: &str) {
    if kind.knows_error_versions() {
        return assert_same(through, direct);
    }
    let mut older = through.to_owned();
    for (newer_form, older_form) in REFUSED {
        assert_eq!(through.matches(newer_form).count(), 2, "refusals in the client's day");
        older = older.replace(newer_form, older_form);
    }
    assert_same(&older, direct);
}

/// Says where two transcripts part, which are long.
pub(crate) fn assert_same(through: &str, direct: &str) {
    let lines = || through.lines().zip(direct.lines());
    let Some(at) = lines().position(|(one, other)| one != other) else {
        assert_eq!(through.len(), direct.len());
        return;
    };
    let around =
        |text: &str| text.lines().skip(at.saturating_sub(12)).take(24).collect::<Vec<_>>().join("\n");
    panic!("through the sidecar:\n{}\ndirectly:\n{}", around(through), around(direct));
}
