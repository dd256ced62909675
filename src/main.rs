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
    drift::{self, Progress},
    operator::{self, Order, Said},
    probe, shutdown, telemetry,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong arguments or a wrong configuration, as shells and clap have it.
const WRONG_USE: u8 = 2;

/// `audit` found differences and left some.
const DRIFT: u8 = 3;

/// `sessions` was asked for a session that is not live.
const NOT_FOUND: u8 = 4;

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
    let Invocation { command, config, file, warnings, repair, order, json, .. } = invocation;
    if matches!(command, Command::Serve | Command::Validate) {
        for warning in &warnings {
            complain(&format!("warning: {warning}"));
        }
    }
    let admin = config.admin.listen;
    let done = match command {
        Command::Serve => serve(config),
        Command::Validate => {
            let file = file.map_or("no configuration file".to_owned(), |path| path.display().to_string());
            Ok(say(&format!("ok: {file}\n")))
        }
        Command::Healthcheck => probe::healthcheck(admin).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Drain => probe::drain(admin).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Audit => audit(&config, repair, json),
        Command::Sessions => order.map_or(Ok(ExitCode::SUCCESS), |order| sessions(order, &config, json)),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("error: {}", chain(&*error)));
        ExitCode::FAILURE
    })
}

type Failure = Box<dyn std::error::Error>;

/// Compares the store with the database, and tells on stderr how far it has come.
fn audit(config: &Config, repair: bool, json: bool) -> Result<ExitCode, Failure> {
    let (Some(store), Some(database)) = (&config.store, &config.database_url) else {
        return Err("store.url and database_url: expected both".into()); // the configuration was checked for them
    };
    let mut tell = |progress: Progress| {
        let Progress { what, done, about, rate } = progress;
        let about = about.map_or(String::new(), |rows| format!(" of about {rows}"));
        complain(&format!("audit: {done}{about} {what}, {rate:.0} in a second"));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let job = drift::Job { store, ttl: config.session.ttl, database, repair, settle: drift::settling(store) };
    let report = runtime.block_on(drift::run(job, &mut tell))?;
    say(&if json { report.json() } else { report.text() });
    Ok(if report.left() == 0 { ExitCode::SUCCESS } else { ExitCode::from(DRIFT) })
}

/// Shows or revokes sessions. Its audit lines go to stderr, in the log's form.
fn sessions(order: Order, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let (_log, _flushed_at_the_end) = telemetry::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(operator::obey(order, config))?;
    say(&if json { said.json() } else { said.text() });
    if said == Said::Nothing {
        complain("error: there is no such live session of this user");
        return Ok(ExitCode::from(NOT_FOUND));
    }
    Ok(ExitCode::SUCCESS)
}

/// Serves until a signal has drained it.
fn serve(config: Config) -> Result<ExitCode, Failure> {
    let (log, _flushed_at_the_end) = telemetry::init(&config.log)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended: Result<Ended, Failure> = runtime.block_on(async {
        let app = App::build(config, Some(log))?;
        tracing::info!(listen = %app.address()?, admin = %app.admin_address()?, "serving");
        let signals = shutdown::signals(app.drain())?;
        let running = app.run();
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = signals => running.await,
        };
        Ok(ended?)
    });
    runtime.shutdown_background(); // whatever waits for a disk or a resolver was waited for, or cut off
    let ended = ended?;
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
