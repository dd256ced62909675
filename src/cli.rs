//! The command line: which command, with which configuration.

mod sessions;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{Arg, ArgAction, ArgMatches, builder::OsStringValueParser, error::ErrorKind};

use crate::config::{
    Config, Draft,
    keys::{CONFIG_FLAG, CONFIG_VARIABLE, KEYS, Key, UsedBy},
    problem::{Place, Problem, Problems},
    reference,
    source::{self, Given},
    spelling,
};
use crate::operator::Order;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve requests until a signal; the default.
    Serve,
    /// Say whether `serve` would take the configuration.
    Validate,
    /// Ask a running sidecar whether it is well.
    Healthcheck,
    /// Tell a running sidecar to drain.
    Drain,
    /// Compare the store with GoTrue's database.
    Audit,
    /// Show or revoke sessions in the store.
    Sessions,
}

impl Command {
    const ALL: [Self; 6] =
        [Self::Serve, Self::Validate, Self::Healthcheck, Self::Drain, Self::Audit, Self::Sessions];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Validate => "validate",
            Self::Healthcheck => "healthcheck",
            Self::Drain => "drain",
            Self::Audit => "audit",
            Self::Sessions => "sessions",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Serve => "Serve requests until a signal (the default)",
            Self::Validate => "Check configuration and the files it names, without network",
            Self::Healthcheck => "Ask the sidecar at admin.listen whether it is well",
            Self::Drain => "Tell the sidecar at admin.listen to drain",
            Self::Audit => "Compare the store with auth.sessions, the table of GoTrue's database",
            Self::Sessions => "List, show or revoke a user's sessions in the store",
        }
    }

    /// Flags that only this command takes, and what they are for.
    fn own_flags(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Audit => {
                &[(REPAIR, "Bring the store to what the database says"), (JSON, "Print one JSON object")]
            }
            Self::Sessions => &[(JSON, "Print one JSON object")],
            Self::Serve | Self::Validate | Self::Healthcheck | Self::Drain => &[],
        }
    }

    /// Whether a key's file is about to be read. `audit` needs the way to the store and to the database.
    fn reads(self, key: &Key) -> bool {
        match self {
            Self::Serve | Self::Validate => key.used_by == UsedBy::Serve,
            Self::Audit => key.used_by == UsedBy::Audit || leads_to_store(key),
            Self::Sessions => leads_to_store(key),
            Self::Healthcheck | Self::Drain => false,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }
}

/// Whether a key's file is part of the way to the store.
fn leads_to_store(key: &Key) -> bool {
    key.section().0 == Some("store") && key.name != "store.ref_key_file"
}

/// A command and everything it needs.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// With what.
    pub config: Config,
    /// `--repair`, of `audit`.
    pub repair: bool,
    /// What `sessions` is told to do.
    pub order: Option<Order>,
    /// `--json`, of `audit` and `sessions`.
    pub json: bool,
    /// The configuration file that was read, if one was.
    pub file: Option<PathBuf>,
    /// With `--print-config`: the text to print instead of doing anything.
    pub printed: Option<String>,
    /// What works but was probably not meant, for the log.
    pub warnings: Vec<String>,
}

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Stop {
    /// Help or version: for stdout, exit code 0.
    Say(String),
    /// Everything that is wrong with the arguments and the configuration: for stderr, exit code 2.
    Refuse(String),
}

/// Reads arguments (without the program's name), environment and configuration file.
///
/// `serve`, `validate` and `audit` also read the files that the configuration names and they use; the other
/// commands and `--print-config` do not need them.
///
/// # Errors
/// When there is nothing to do: help was asked for, or something is wrong.
pub fn invocation(
    args: impl IntoIterator<Item = OsString>,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Invocation, Stop> {
    let env: Vec<(OsString, OsString)> = env.collect();
    let (command, matches, mut problems) = parsed(args)?;
    let (flags, unread) = flags(&matches);
    problems.extend(unread);
    let mut draft = Draft::read(file(&matches, &env).as_deref(), &env, flags);
    draft.add(problems);
    let print = matches.get_flag(PRINT_CONFIG);
    if !print {
        draft.check_files(|key| command.reads(key));
        match command {
            Command::Audit => draft.check_audit(),
            Command::Sessions => draft.check_sessions(),
            _ => {}
        }
    }
    let order = (command == Command::Sessions && !print).then(|| sessions::order(&matches)).transpose();
    let order = order.unwrap_or_else(|problem| {
        draft.add(vec![problem]);
        None
    });
    let own = |flag| command.own_flags().iter().any(|(own, _)| *own == flag) && matches.get_flag(flag);
    let loaded = draft.finish().map_err(|problems| Stop::Refuse(problems.to_string()))?;
    Ok(Invocation {
        command,
        printed: print.then(|| loaded.effective()),
        config: loaded.config,
        repair: own(REPAIR),
        order,
        json: own(JSON),
        file: loaded.file,
        warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
    })
}

/// The command, its flags, and which arguments were none.
fn parsed(args: impl IntoIterator<Item = OsString>) -> Result<(Command, ArgMatches, Vec<Problem>), Stop> {
    let (args, mut problems) = sift(args);
    match arguments().try_get_matches_from(args) {
        Ok(mut matches) => match matches.remove_subcommand() {
            Some((name, matches)) => Ok((Command::named(&name).unwrap_or(Command::Serve), matches, problems)),
            None => Ok((Command::Serve, matches, problems)),
        },
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Err(Stop::Say(error.to_string()))
        }
        Err(error) => {
            problems.push(Problem::Usage(usage(&error)));
            Err(Stop::Refuse(Problems(problems).to_string()))
        }
    }
}

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print-config";
const REPAIR: &str = "repair";
const JSON: &str = "json";

/// Flags that take no value.
const BARE: [&str; 7] = ["--print-config", "--repair", "--json", "--help", "-h", "--version", "-V"];

/// The command line as clap sees it.
pub fn arguments() -> clap::Command {
    let own = |&(name, help): &(&'static str, &'static str)| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let commands = Command::ALL.map(|command| {
        let flags = command.own_flags().iter().map(own);
        let arguments = (command == Command::Sessions).then(sessions::arguments).into_iter().flatten();
        clap::Command::new(command.name()).about(command.about()).args(flags).args(arguments)
    });
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(OsStringValueParser::new())
        .global(true)
        .help(format!(
            "The configuration file [default: ./sidecar.yaml if it is there] [env: {CONFIG_VARIABLE}]"
        ));
    let print = Arg::new(PRINT_CONFIG)
        .long(PRINT_CONFIG)
        .action(ArgAction::SetTrue)
        .global(true)
        .help("Print the effective configuration without its secrets, and end");
    clap::Command::new("gotrue-sidecar")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A reverse proxy beside GoTrue that gives it server-side sessions")
        .after_help("Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 drift was found and is not repaired (audit), 4 no such live session (sessions).")
        .disable_help_subcommand(true)
        .subcommands(commands)
        .arg(config)
        .arg(print)
        .args(KEYS.iter().map(flag))
}

/// The flag of a key. Its value is judged with the other layers', not by clap.
fn flag(key: &'static Key) -> Arg {
    Arg::new(key.name)
        .long(key.long())
        .value_name(key.kind.placeholder())
        .value_parser(OsStringValueParser::new())
        .allow_hyphen_values(true)
        .action(ArgAction::Append)
        .global(true)
        .help_heading(key.section().0.unwrap_or("General"))
        .help(reference::flag_help(key))
}

/// The layer of flags, and what is wrong with it. A list's flag can be given more than once.
fn flags(matches: &ArgMatches) -> (Vec<(&'static Key, Given)>, Vec<Problem>) {
    let (mut given, mut problems) = (Vec::new(), Vec::new());
    for key in KEYS.iter() {
        let Some(values) = matches.get_many::<OsString>(key.name) else {
            continue;
        };
        let values: Vec<OsString> = values.cloned().collect();
        let place = Place::Flag(key.flag());
        if values.len() > 1 && !key.kind.is_list() {
            problems.push(Problem::Twice { key: key.name.to_owned(), place });
            continue;
        }
        match source::given_by(key, &values.join(",".as_ref()), place) {
            Ok(value) => given.push((key, value)),
            Err(problem) => problems.push(problem),
        }
    }
    (given, problems)
}

/// The configuration file that was named.
fn file(matches: &ArgMatches, env: &[(OsString, OsString)]) -> Option<PathBuf> {
    let variable = || env.iter().find(|(name, value)| name == CONFIG_VARIABLE && !value.is_empty());
    let flag = matches.get_one::<OsString>(CONFIG);
    flag.or_else(|| variable().map(|(_, value)| value)).map(PathBuf::from)
}

/// Takes out what clap would stop at, so that it is told together with everything else that is wrong, and
/// without showing what may be half a secret.
fn sift(args: impl IntoIterator<Item = OsString>) -> (Vec<OsString>, Vec<Problem>) {
    let mut kept = Vec::new();
    let mut problems = Vec::new();
    let mut args = (1..).zip(args).peekable();
    let (mut command, mut action) = (None, None);
    while let Some((position, arg)) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let (name, value) =
            text.split_once('=').map_or((text.as_str(), None), |(name, value)| (name, Some(value)));
        let key = KEYS.iter().find(|key| key.flag() == name);
        if key.is_some() || name == CONFIG_FLAG || sessions::VALUED.contains(&name) {
            match (key, value.is_none().then(|| args.next())) {
                (Some(key), Some(None)) => problems.push(without_value(key)),
                (_, next) => {
                    kept.extend([Some(arg), next.flatten().map(|(_, value)| value)].into_iter().flatten());
                }
            }
        } else if BARE.contains(&text.as_str()) {
            kept.push(arg);
        } else if command.is_none() && Command::named(&text).is_some() {
            command = Some(arg);
        } else if action.is_none()
            && command.as_deref() == Some("sessions".as_ref())
            && sessions::is_action(&text)
        {
            action = Some(arg);
        } else if text.starts_with('-') {
            problems.push(unknown_flag(name));
            let is_value = value.is_none();
            args.next_if(|(_, next)| is_value && is_stray(next));
        } else {
            problems.push(stray_argument(position, &text));
        }
    }
    // In front, so that flags before and behind it are one level to clap.
    let front = [Some(OsString::from("gotrue-sidecar")), command, action];
    (front.into_iter().flatten().chain(kept).collect(), problems)
}

/// Whether an argument behind an unknown flag is that flag's value.
fn is_stray(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    !text.starts_with('-') && Command::named(&text).is_none()
}

fn without_value(key: &Key) -> Problem {
    let place = Place::Flag(key.flag());
    Problem::Value { key: key.name.to_owned(), place, expected: key.kind.expected() }
}

fn unknown_flag(name: &str) -> Problem {
    let known = KEYS
        .iter()
        .map(Key::flag)
        .chain(BARE.map(str::to_owned))
        .chain(sessions::VALUED.map(str::to_owned))
        .chain([CONFIG_FLAG.to_owned()]);
    Problem::UnknownPlace { place: Place::Flag(name.to_owned()), nearest: spelling::nearest(name, known) }
}

fn stray_argument(position: usize, text: &str) -> Problem {
    let commands = Command::ALL.map(Command::name);
    let nearest = spelling::nearest(text, commands.into_iter().map(str::to_owned));
    Problem::Argument { position, commands: commands.join(", "), nearest }
}

/// The first paragraph of what clap says, without its own heading.
fn usage(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).trim().to_owned()
}
