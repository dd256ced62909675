//! From arguments, environment and file to the configuration, and what is said when that fails.

mod binary;
mod documents;
mod rules;
mod secrets;

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, time::Duration};

use gotrue_sidecar::{
    cli::{self, Command, Invocation, Stop},
    config::{
        Jwks, LogLevel, StoreTarget,
        keys::{KEYS, Key},
        kind::Kind,
    },
};
use tempfile::TempDir;

/// A folder with a configuration file, and what is called with it.
struct Call {
    folder: TempDir,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Call {
    /// With a file of this content.
    fn with_file(text: &str) -> Self {
        let call = Self { folder: tempfile::tempdir().unwrap(), args: vec![], env: vec![] };
        let path = call.path("sidecar.yaml");
        fs::write(&path, text).unwrap();
        call.arg("--config").arg(path)
    }

    fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(OsString::from));
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn stop(&self) -> Result<Invocation, Stop> {
        cli::invocation(self.args.clone(), self.env.clone().into_iter())
    }

    fn invocation(&self) -> Invocation {
        self.stop().unwrap_or_else(|stop| panic!("{stop:?}"))
    }

    /// What is said when it is refused, one line for each problem, with the file's name but not its folder.
    fn refusal(&self) -> Vec<String> {
        let Err(Stop::Refuse(text)) = self.stop() else { panic!("not refused") };
        let text = text.replace(&format!("{}/", self.folder.path().display()), "");
        text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
    }
}

/// Three values of a key that differ from each other and from its default.
fn samples(key: &Key) -> [String; 3] {
    let texts = match key.kind {
        Kind::Address => ["127.0.0.1:7001", "127.0.0.1:7002", "[::1]:7003"],
        Kind::PathPrefix => ["/a", "/b", "/auth/v1"],
        Kind::UpstreamUrl => ["https://a", "https://b:8443", "https://c/auth/v1"],
        Kind::StoreUrl => ["rediss://a", "rediss://b:6380/1", "rediss://c"],
        Kind::DatabaseUrl => {
            ["postgres://a/b", "postgresql://u:p@a:5433/b", "postgres://a/b?sslmode=require"]
        }
        Kind::Jwks => ["off", "https://a/jwks.json", "http://b/jwks.json"],
        Kind::JsonKeys => ["[]", r#"[{"kty":"oct"}]"#, r#"[{"kty":"EC"}]"#],
        Kind::KeyPrefix => ["a", "b:c", "2024"],
        Kind::Username => ["a", "b:c", "gotrue-sidecar"],
        Kind::ServerName => ["redis.internal", "127.0.0.1", "::1"],
        Kind::Text => ["a secret of more than 32 bytes, 1", "0x1f", "# \"quoted\": 'twice' \\"],
        Kind::Networks => ["10.0.0.0/8", "10.0.0.0/8,fd00::/8", "192.168.1.7"],
        Kind::Words => ["admin", "service_role,admin", "a,b,c"],
        Kind::AutoCount(..) => ["1", "2", "64"],
        Kind::Switch => ["true", "false", "true"],
        Kind::OneOf(words) => [words[words.len() - 1], words[0], words[words.len() - 1]],
        Kind::AnyOf(_) => ["store", "upstream,store", ""],
        Kind::Duration(..) if key.name == "session.idle_timeout" => ["5m", "1h", "10m"],
        Kind::Duration(least, most) | Kind::Size(least, most) => [least, most, least],
        Kind::Count(least, most) => return [least.to_string(), most.to_string(), (least + 1).to_string()],
        Kind::File | Kind::Folder => ["a", "b", "c"],
    };
    texts.map(str::to_owned)
}

/// What a key needs around it to be allowed.
fn surroundings(call: Call, key: &Key) -> Call {
    let call = match key.name {
        "store.url" | "store.url_file" => call,
        "store.ca_file" | "store.client_cert_file" | "store.client_key_file" | "store.tls_server_name" => {
            call.env("SIDECAR_STORE_URL", "rediss://redis")
        }
        name if name.starts_with("store.sentinel_") => {
            call.env("SIDECAR_STORE_URL", "redis+sentinel://sentinel/master")
        }
        _ => call.env("SIDECAR_STORE_URL", "redis://redis"),
    };
    match key.name {
        "tls.cert_file" => call.env("SIDECAR_TLS_KEY_FILE", "key.pem"),
        "tls.key_file" => call.env("SIDECAR_TLS_CERT_FILE", "cert.pem"),
        "store.client_cert_file" => call.env("SIDECAR_STORE_CLIENT_KEY_FILE", "key.pem"),
        "store.client_key_file" => call.env("SIDECAR_STORE_CLIENT_CERT_FILE", "cert.pem"),
        "store.username" => call.env("SIDECAR_STORE_PASSWORD", "secret"),
        "store.sentinel_username" => call.env("SIDECAR_STORE_SENTINEL_PASSWORD", "secret"),
        "revoke.upstream" => call.env("GOTRUE_JWT_SECRET", "a secret of more than 32 bytes, 1234"),
        "upstream.ca_file" => call.env("SIDECAR_UPSTREAM_URL", "https://gotrue"),
        _ => call,
    }
}

/// A file with one key, quoted as JSON is.
fn file_with(key: &Key, value: &str) -> String {
    let value = if key.kind.is_plain() { value.to_owned() } else { format!("{value:?}") };
    match key.section() {
        (Some(section), name) => format!("{section}:\n  {name}: {value}\n"),
        (None, name) => format!("{name}: {value}\n"),
    }
}

/// The line of the effective configuration that shows a key.
fn shown(call: &Call, key: &Key) -> String {
    let printed = call.invocation().printed.unwrap();
    let (section, name) = key.section();
    let mut lines = printed.lines();
    if let Some(section) = section {
        assert!(lines.any(|line| line == format!("{section}:")), "{section}");
    }
    let line = lines.map(str::trim).find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.to_owned()
}

#[test]
fn every_key_can_be_given_in_all_three_places_and_the_nearer_one_wins() {
    for key in KEYS.iter() {
        let [in_file, in_env, in_flag] = samples(key);
        // A subcommand that does not read the named files, which are not there.
        let mut call = surroundings(Call::with_file(&file_with(key, &in_file)), key);
        call = call.args(["drain", "--print-config"]);
        assert!(shown(&call, key).contains("sidecar.yaml:"), "{} in the file", key.name);
        call = call.env(&key.variable(), &in_env);
        let line = shown(&call, key);
        assert!(line.ends_with(&format!("# {}", key.variable())), "{line}");
        call = call.arg(key.flag()).arg(&in_flag);
        let line = shown(&call, key);
        assert!(line.ends_with(&format!("# {}", key.flag())), "{line}");
        if key.secret {
            assert!(line.contains("(secret)") || key.name == "store.url", "{line}");
        } else {
            let items: Vec<_> = in_flag.split(',').collect();
            assert!(items.iter().all(|item| line.contains(item)), "{line} for {in_flag}");
        }
    }
}

#[test]
fn every_key_refuses_what_it_does_not_admit_in_all_three_places() {
    for key in KEYS.iter().filter(|key| !matches!(key.kind, Kind::File | Kind::Folder | Kind::Text)) {
        let bad = "no such value";
        let expected = format!("): expected {}", key.kind.expected());
        let places = [
            (
                Call::with_file(&file_with(key, &format!("{bad:?}").replace('"', ""))),
                "sidecar.yaml:".to_owned(),
            ),
            (Call::with_file("").env(&key.variable(), bad), key.variable()),
            (Call::with_file("").arg(key.flag()).arg(bad), key.flag()),
        ];
        for (call, place) in places {
            let problems = call.refusal();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(&format!("{} ({place}", key.name)), "{}", problems[0]);
            assert!(problems[0].ends_with(&expected), "{}", problems[0]);
        }
    }
}

#[test]
fn nothing_given_is_a_stateless_proxy_at_the_defaults() {
    let invocation = Call::with_file("").invocation();
    assert_eq!(invocation.command, Command::Serve);
    assert_eq!(invocation.warnings, Vec::<String>::new());
    let config = invocation.config;
    assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 9999)));
    assert_eq!(config.admin.listen, SocketAddr::from(([0, 0, 0, 0], 9464)));
    assert_eq!(config.upstream.url.authority.as_str(), "127.0.0.1:9997");
    assert!(config.store.is_none() && config.tls.is_none());
    assert!(!config.lookup && !config.enforce);
    assert_eq!(config.jwt.jwks, Jwks::Upstream);
    assert_eq!(config.session.ttl, Duration::from_secs(30 * 86_400));
    assert_eq!(config.limits.header_bytes, 65_536);
    assert!(config.readiness.upstream && !config.readiness.store);
    assert!((1..=2).contains(&config.workers));
}

#[test]
fn a_store_turns_lookup_on() {
    let config = Call::with_file("store: {url: 'memory:'}").invocation().config;
    assert!(matches!(config.store.unwrap().target, StoreTarget::Memory));
    assert!(config.lookup);
    let config = Call::with_file("store: {url: 'memory:'}\nlookup: false").invocation().config;
    assert!(!config.lookup);
}

#[test]
fn five_mistakes_in_three_places_are_told_at_once() {
    let call = Call::with_file("listen: 9999\nstore:\n  timout: 5s\nlimits:\n  header_bytes: 1KiB\n")
        .env("SIDECAR_LOG_LEVEL", "loud")
        .args(["--upstream-url", "gotrue:9997", "--enforced", "true", "--session-ttl", "40d"]);
    assert_eq!(
        call.refusal(),
        [
            "listen (sidecar.yaml:1): expected an IP address and a port, such as 0.0.0.0:9999 or [::]:9999, in quotes",
            "store.timout (sidecar.yaml:3): unknown key; did you mean store.timeout?",
            "upstream.url (--upstream-url): expected an http:// or https:// address, possibly with a port and a path, without user, query or fragment",
            "limits.header_bytes (sidecar.yaml:5): expected a size from 8KiB to 1MiB, a whole number of bytes, KiB, MiB or GiB",
            "log.level (SIDECAR_LOG_LEVEL): expected one of off, error, warn, info, debug, trace",
            "--enforced: expected the name of a key; did you mean --enforce?",
            "session.ttl (--session-ttl): needs a store; expected store.url or store.url_file as well",
        ]
    );
}

#[test]
fn flags_and_commands_stand_in_any_order() {
    let in_front = Call::with_file("").args(["--log-level", "warn", "validate"]).invocation();
    let behind = Call::with_file("").args(["validate", "--log-level=warn"]).invocation();
    for invocation in [in_front, behind] {
        assert_eq!(invocation.command, Command::Validate);
        assert_eq!(invocation.config.log.level, LogLevel::Warn);
    }
    for (name, command) in [("serve", Command::Serve), ("healthcheck", Command::Healthcheck)] {
        assert_eq!(Call::with_file("").arg(name).invocation().command, command);
    }
}

#[test]
fn a_lists_flag_can_be_repeated() {
    let call = Call::with_file("").args([
        "--forwarded-trusted-proxies",
        "10.0.0.0/8",
        "serve",
        "--forwarded-trusted-proxies=fd00::/8,::1",
    ]);
    assert_eq!(call.invocation().config.trusted_proxies.len(), 3);
}

#[test]
fn wrong_arguments_are_told_together_with_the_rest() {
    let call = Call::with_file("log: {level: loud}").args(["valdate", "--no-such-thing", "7"]).args([
        "--log-format",
        "text",
        "--log-format=json",
        "drain",
        "validate",
        "--listen",
        "--enforce",
        "--drain-delay",
    ]);
    let problems = call.refusal();
    let commands = "expected a flag or one command of serve, validate, healthcheck, drain, audit, sessions";
    let expected = [
        "listen (--listen): expected an IP address".to_owned(),
        "log.level (sidecar.yaml:1): expected one of off".to_owned(),
        format!("argument 3: {commands}; did you mean validate?"),
        "--no-such-thing: expected the name of a key".to_owned(),
        format!("argument 10: {commands}"),
        "drain.delay (--drain-delay): expected a duration".to_owned(),
        "log.format (--log-format): given twice; expected once".to_owned(),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(&expected), "{problem}");
    }
}

#[test]
fn what_only_clap_refuses_is_told_in_its_words() {
    let problems = Call::with_file("").args(["--config", "b"]).refusal();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("'--config <FILE>' cannot be used multiple times"), "{}", problems[0]);
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    let call = Call::with_file("");
    let named = |path: PathBuf| {
        Call { folder: tempfile::tempdir().unwrap(), args: vec![], env: vec![] }.arg("--config").arg(path)
    };
    for path in [call.path("no.yaml"), call.folder.path().to_owned()] {
        let problems = named(path.clone()).refusal();
        assert_eq!(problems.len(), 1);
        let expected = format!("{}: expected a readable configuration file: ", path.display());
        assert!(problems[0].starts_with(&expected), "{}", problems[0]);
    }
}
