//! The program itself: its exit codes, and what goes to which stream.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Runs the program in `folder` with nothing else in its environment.
fn run(folder: &Path, env: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_gotrue-sidecar"))
        .current_dir(folder)
        .env_clear()
        .envs(env.iter().copied())
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn help_and_version_go_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = run(folder.path(), &[], &["--version"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, concat!("gotrue-sidecar ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
    let (code, out, err) = run(folder.path(), &[("SIDECAR_STORE_PASSWORD", "canary")], &["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("--store-password") && !out.contains("canary"));
}

#[test]
fn validate_says_ok_and_which_file() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, _) = run(folder.path(), &[], &["validate"]);
    assert_eq!((code, out.as_str()), (0, "ok: no configuration file\n"));
    fs::write(folder.path().join("sidecar.yaml"), "log: {level: warn}\n").unwrap();
    let (code, out, _) = run(folder.path(), &[], &["validate"]);
    assert_eq!((code, out.as_str()), (0, "ok: sidecar.yaml\n"));
    fs::write(folder.path().join("other.yaml"), "").unwrap();
    let (code, out, _) = run(folder.path(), &[("SIDECAR_CONFIG", "other.yaml")], &["validate"]);
    assert_eq!((code, out.as_str()), (0, "ok: other.yaml\n"));
    let (_, out, _) =
        run(folder.path(), &[("SIDECAR_CONFIG", "no.yaml")], &["validate", "--config", "sidecar.yaml"]);
    assert_eq!(out, "ok: sidecar.yaml\n");
}

#[test]
fn mistakes_go_to_stderr_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sidecar.yaml"), "listen: here\nlog: {level: loud}\n").unwrap();
    for command in [&["validate"][..], &["serve"], &[], &["healthcheck"], &["--print-config"]] {
        let (code, out, err) = run(folder.path(), &[], command);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(
            err.starts_with("error: the configuration has 2 problems:\n  listen (sidecar.yaml:1): "),
            "{err}"
        );
    }
    let (code, _, err) = run(folder.path(), &[("SIDECAR_CONFIG", "no.yaml")], &["validate"]);
    assert_eq!(code, 2);
    assert!(err.contains("no.yaml: expected a readable configuration file"), "{err}");
}

#[test]
fn the_effective_configuration_goes_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("SIDECAR_STORE_URL", "redis://:canary@redis"), ("GOTRUE_JWT_SECRET", "canary")];
    let (code, out, err) = run(folder.path(), &env, &["--print-config", "--log-level", "debug"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("  level: debug  # --log-level\n"), "{out}");
    assert!(out.contains("  secret: \"(secret)\"  # GOTRUE_JWT_SECRET\n"), "{out}");
    assert!(out.contains("listen: 0.0.0.0:9999  # default\n"), "{out}");
    assert!(!out.contains("canary"));
}

#[test]
fn warnings_go_to_stderr_and_are_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = run(folder.path(), &[("GOTRUE_JWT_SECRET", "short")], &["validate"]);
    assert_eq!((code, out.as_str()), (0, "ok: no configuration file\n"));
    assert!(err.starts_with("warning: jwt.secret (GOTRUE_JWT_SECRET): shorter than 32 bytes"), "{err}");
}
