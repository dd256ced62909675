//! `tracing` events as lines of the log.

use std::{error::Error, fmt, time::SystemTime};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use super::{LogBuffer, line::Line};
use crate::config::LogFormat;

/// Writes a line for every event. Spans are not printed: the few facts that concern a whole
/// request stand in its access line.
#[derive(Debug)]
pub(super) struct Events {
    format: LogFormat,
    buffer: LogBuffer,
}

impl Events {
    pub(super) fn new(format: LogFormat, buffer: LogBuffer) -> Self {
        Self { format, buffer }
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        self.buffer.line(|out| {
            let level = word(*about.level());
            let mut line = Line::begin(out, self.format, SystemTime::now(), level, about.target());
            event.record(&mut Fields(&mut line));
            line.end();
        });
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Puts an event's fields into its line.
struct Fields<'a, 'b>(&'a mut Line<'b>);

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.0.message(text.as_bytes()),
            name => self.0.text(name, text.as_bytes()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value.as_bytes());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.signed(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.flag(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.text(field.name(), chain(value).as_bytes());
    }
}

/// The error and what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
