//! The `gotrue-sidecar` command: reads its configuration, does what it was told, and says how that went
//! with its exit code.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use gotrue_sidecar::{
    cli::{self, Command, Invocation, Stop},
    config::Config,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong arguments or a wrong configuration, as shells and clap have it.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    match cli::invocation(env::args_os().skip(1), env::vars_os()) {
        Ok(Invocation { printed: Some(text), .. }) | Err(Stop::Say(text)) => say(&text),
        Ok(invocation) => obey(invocation),
        Err(Stop::Refuse(text)) => {
            complain(&format!("error: {text}"));
            ExitCode::from(WRONG_USE)
        }
    }
}

fn obey(invocation: Invocation) -> ExitCode {
    let Invocation { command, config, file, warnings, .. } = invocation;
    if matches!(command, Command::Serve | Command::Validate) {
        for warning in &warnings {
            complain(&format!("warning: {warning}"));
        }
    }
    if command == Command::Validate {
        let file = file.map_or("no configuration file".to_owned(), |path| path.display().to_string());
        return say(&format!("ok: {file}\n"));
    }
    run(command, config)
}

/// Does what needs the network: `serve`, `healthcheck`, `drain`.
fn run(_: Command, _: Config) -> ExitCode {
    ExitCode::FAILURE
}

/// To stdout. A reader that went away is no failure of ours.
fn say(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// A line to stderr.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
