//! A sidecar in this process, on ports of its own, configured by the flags that a user would give.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use gotrue_sidecar::{
    app::{App, Ended},
    cli,
    clock::Clock,
    shutdown::Drain,
    store::{Source, Store},
    telemetry::LogBuffer,
};

use ::http as http_types;

use super::http;

/// Serves until it is dropped or told to stop.
pub(crate) struct Sidecar {
    /// Of the public listener, without a slash at the end.
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) drain: Drain,
    store: Option<Arc<Source>>,
    log: Log,
    thread: Option<JoinHandle<Ended>>,
}

impl Sidecar {
    /// Starts one with flags such as `--store-url=memory:`. Ports are chosen by the system, the drain
    /// has no delay, and one worker serves, unless the flags say otherwise.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    /// With an environment: it is the only one that the sidecar sees.
    pub(crate) fn start_with(flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::launch(flags, env, |app| app)
    }

    /// Whose sessions go by that clock.
    pub(crate) fn start_at(clock: &Clock, flags: &[&str]) -> Self {
        let clock = clock.clone();
        Self::launch(flags, &[], |app| app.with_clock(clock))
    }

    /// Which lets Redis deal with so few sessions of a user at once.
    pub(crate) fn start_in_steps(step: u32, clock: &Clock, flags: &[&str]) -> Self {
        let clock = clock.clone();
        Self::launch(flags, &[], move |app| app.with_clock(clock).with_step(step))
    }

    fn launch(
        flags: &[&str],
        env: &[(&str, &str)],
        set_up: impl FnOnce(App) -> App + Send + 'static,
    ) -> Self {
        let args = with_defaults(flags).into_iter().map(OsString::from);
        let env: Vec<(OsString, OsString)> =
            env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let config = match cli::invocation(args, env.into_iter()) {
            Ok(invocation) => invocation.config,
            Err(stop) => panic!("the sidecar's flags are wrong: {stop:?}"),
        };
        let (started, starting) = mpsc::channel();
        let log = Log::default();
        let lines = log.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (buffer, _guard) = LogBuffer::new(Box::new(lines)).unwrap();
                let app = set_up(App::build(config, Some(buffer)).unwrap());
                let addresses = (app.address().unwrap(), app.admin_address().unwrap());
                started.send((addresses, app.drain(), app.store())).unwrap();
                Box::pin(app.run()).await.unwrap()
            })
        });
        let ((address, admin), drain, store) = starting.recv().expect("the sidecar did not start");
        let url = format!("http://{address}");
        Self { url, address, admin, drain, store, log, thread: Some(thread) }
    }

    /// Its store, for a look beside it.
    pub(crate) fn store(&self) -> Store {
        self.store.as_ref().expect("the sidecar has no store").connect()
    }

    /// The access log so far; lines come with a delay of up to 200 ms.
    pub(crate) fn access_log(&self) -> String {
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    /// One sample of `/metrics`, such as `gotrue_sidecar_store_up` or
    /// `gotrue_sidecar_mirror_events_total{event="end",result="ended"}`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        sample(self.admin, series).await.parse().unwrap()
    }

    /// Drains it and waits for the end.
    pub(crate) fn stop(mut self) -> Ended {
        self.drain.terminate();
        self.thread.take().unwrap().join().expect("the sidecar panicked")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.drain.terminate();
        self.drain.terminate(); // at once
        let _ = thread.join();
    }
}

/// `serve` with these flags, and with [`DEFAULTS`] where they say nothing else.
pub(crate) fn with_defaults(flags: &[&str]) -> Vec<String> {
    let mut args = vec!["serve".to_owned()];
    for (flag, value) in DEFAULTS {
        if !flags.iter().any(|given| given.starts_with(flag)) {
            args.push(format!("{flag}={value}"));
        }
    }
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    args
}

/// The value of one sample of the `/metrics` at an address, as it stands there.
pub(crate) async fn sample(admin: SocketAddr, series: &str) -> String {
    let request = http_types::Request::get(format!("http://{admin}/metrics")).body(String::new()).unwrap();
    let answer = http::send(request).await.unwrap();
    let page = String::from_utf8(answer.body.to_vec()).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no series {series} in\n{page}")).to_owned()
}

const DEFAULTS: [(&str, &str); 4] = [
    ("--listen", "127.0.0.1:0"),
    ("--admin-listen", "127.0.0.1:0"),
    ("--drain-delay", "0s"),
    ("--runtime-workers", "1"),
];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
