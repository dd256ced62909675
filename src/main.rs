//! The `gotrue-sidecar` command.

fn main() {}
