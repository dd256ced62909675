//! The `gotrue-sidecar` command: reads its configuration, does what it was told, and says how that went
//! with its exit code.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use gotrue_sidecar::{
    app::{App, Ended},
    cli::{self, Command, Invocation, Stop},
    config::Config,
    probe, shutdown, telemetry,
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
fn run(command: Command, config: Config) -> ExitCode {
    let admin = config.admin.listen;
    let done: Result<ExitCode, Box<dyn std::error::Error>> = match command {
        Command::Healthcheck => probe::healthcheck(admin).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Drain => probe::drain(admin).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Serve | Command::Validate => serve(config),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("error: {}", chain(&*error)));
        ExitCode::FAILURE
    })
}

/// Serves until a signal has drained it.
fn serve(config: Config) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (log, _flushed_at_the_end) = telemetry::init(&config.log)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let app = App::build(config, Some(log))?;
        tracing::info!(listen = %app.address()?, admin = %app.admin_address()?, "serving");
        let signals = shutdown::signals(app.drain())?;
        let running = app.run();
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = signals => running.await,
        };
        Ok::<_, Box<dyn std::error::Error>>(ended?)
    })?;
    match ended {
        Ended::Drained => tracing::info!("drained"),
        Ended::Cut(left) => tracing::error!(left, "ended before everything was finished"),
    }
    Ok(if ended == Ended::Drained { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every connection is a file: takes what the system lets us have.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
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
