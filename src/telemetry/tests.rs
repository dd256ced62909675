use std::{sync::mpsc::SyncSender, time::Instant};

use super::*;
use crate::config::LogFormat;

/// Keeps what is written.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes nothing before the other end of its channel is gone.
struct Stuck {
    until: Receiver<()>,
    then: Sink,
}

impl Stuck {
    fn new() -> (Self, Sink, SyncSender<()>) {
        let (release, until) = mpsc::sync_channel(0);
        let then = Sink::default();
        let stuck = Self { until, then: then.clone() };
        (stuck, then, release)
    }
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.until.recv();
        self.then.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fails.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for(what: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(10), "nothing came in ten seconds");
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

fn add(buffer: &LogBuffer, line: &str) {
    buffer.line(|out| out.extend_from_slice(line.as_bytes()));
}

#[test]
fn a_line_is_written_without_being_asked_for() {
    let sink = Sink::default();
    let (buffer, _guard) = LogBuffer::new(Box::new(sink.clone())).unwrap();
    add(&buffer, "one\n");
    wait_for(|| sink.text() == "one\n");
}

#[test]
fn a_burst_does_not_wait_for_its_time() {
    let sink = Sink::default();
    let (buffer, _guard) = LogBuffer::new(Box::new(sink.clone())).unwrap();
    let line = format!("{}\n", "x".repeat(999));
    let mut took = Duration::ZERO;
    for round in 1..=20 {
        for _ in 0..40 {
            add(&buffer, &line);
        }
        took += wait_for(|| sink.len() >= round * 33_000);
        wait_for(|| buffer.shared.lock().lines.is_empty());
    }
    // by the clock alone it would be 200 ms a round
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn what_waits_at_the_end_is_written_and_what_comes_later_is_counted() {
    let sink = Sink::default();
    let (buffer, guard) = LogBuffer::new(Box::new(sink.clone())).unwrap();
    for _ in 0..100 {
        add(&buffer, "line\n");
    }
    drop(guard);
    assert_eq!(sink.text(), "line\n".repeat(100));
    assert_eq!(buffer.dropped(), 0);
    add(&buffer, "late\n");
    assert_eq!(buffer.dropped(), 1);
}

#[test]
fn a_sink_that_takes_nothing_costs_whole_lines_and_no_time() {
    let (stuck, sink, release) = Stuck::new();
    let (buffer, guard) = LogBuffer::new(Box::new(stuck)).unwrap();
    let line = format!("{}\n", "x".repeat(99));
    let began = Instant::now();
    for _ in 0..40_000 {
        add(&buffer, &line);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(buffer.shared.lock().lines.len() <= CAPACITY);
    assert!(buffer.dropped() >= 19_000, "{}", buffer.dropped());
    drop(release);
    drop(guard);
    let text = sink.text();
    assert!(text.lines().all(|line| line.len() == 99), "a line was cut");
    assert_eq!(text.lines().count() as u64 + buffer.dropped(), 40_000);
}

#[test]
fn a_line_that_can_never_fit_is_counted() {
    let (buffer, _guard) = LogBuffer::new(Box::new(io::sink())).unwrap();
    add(&buffer, &"x".repeat(CAPACITY + 1));
    assert_eq!(buffer.dropped(), 1);
}

#[test]
fn a_sink_that_takes_nothing_does_not_keep_the_process() {
    let (stuck, _sink, _release) = Stuck::new();
    let (buffer, guard) = LogBuffer::new(Box::new(stuck)).unwrap();
    add(&buffer, "taken\n");
    wait_for(|| buffer.shared.lock().lines.is_empty());
    add(&buffer, "waiting\n");
    let began = Instant::now();
    drop(guard);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(buffer.dropped(), 1);
}

#[test]
fn lines_that_a_broken_sink_loses_are_counted() {
    let (buffer, guard) = LogBuffer::new(Box::new(Broken)).unwrap();
    add(&buffer, "one\n");
    add(&buffer, "two\n");
    drop(guard);
    assert_eq!(buffer.dropped(), 2);
}

#[test]
fn lines_of_several_threads_stay_whole() {
    let sink = Sink::default();
    let (buffer, guard) = LogBuffer::new(Box::new(sink.clone())).unwrap();
    thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let buffer = &buffer;
            scope.spawn(move || {
                for _ in 0..1_000 {
                    add(buffer, &format!("{}\n", name.repeat(50)));
                }
            });
        }
    });
    drop(guard);
    let text = sink.text();
    let whole = |line: &str| line.len() == 50 && line.bytes().all(|byte| line.as_bytes()[0] == byte);
    assert!(text.lines().all(whole));
    assert_eq!(text.lines().count() as u64 + buffer.dropped(), 4_000);
}

#[derive(Debug, thiserror::Error)]
#[error("the store cannot be reached")]
struct Outer(#[source] io::Error);

fn say_something() {
    let error = Outer(io::Error::other("no \"route\""));
    tracing::debug!("not asked for");
    tracing::warn!(
        error = &error as &(dyn std::error::Error + 'static),
        tries = 3_u64,
        ahead = -2_i64,
        yes = true,
        addr = "[::1]:80",
        none = None::<u64>,
        "away {}",
        "again"
    );
}

#[test]
fn an_event_is_one_json_object() {
    let log = captured(LogFormat::Json, say_something);
    assert_eq!(log.lines().count(), 1, "{log}");
    let line: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["target"], "gotrue_sidecar::telemetry::tests");
    assert_eq!(line["message"], "away again");
    assert_eq!(line["error"], "the store cannot be reached: no \"route\"");
    assert_eq!(line["tries"], 3);
    assert_eq!(line["ahead"], -2);
    assert_eq!(line["yes"], true);
    assert_eq!(line.get("none"), None);
    assert_eq!(line["ts"].as_str().unwrap().len(), 24);
}

#[test]
fn an_event_in_text_begins_with_its_message() {
    let log = captured(LogFormat::Text, say_something);
    let (_, line) = log.split_once(' ').unwrap();
    assert_eq!(
        line,
        "warn gotrue_sidecar::telemetry::tests: away again error=\"the store cannot be reached: \
         no \\\"route\\\"\" tries=3 ahead=-2 yes=true addr=[::1]:80\n"
    );
}

#[test]
fn what_is_printed_may_itself_log() {
    struct Chatty;
    impl fmt::Display for Chatty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            tracing::info!("inner");
            f.write_str("outer")
        }
    }
    let log = captured(LogFormat::Text, || tracing::info!(value = %Chatty, "said"));
    assert!(log.ends_with(": said value=outer\n"), "{log}");
}
