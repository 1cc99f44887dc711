//! Structured logs: text on a terminal, one JSON object a line otherwise. Identical warnings are written at most once in ten seconds.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use messaging::clock::{Clock, SystemClock};
use messaging::config::LogFormat;
use messaging::metrics;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Identical warnings and errors within this time are counted, not written.
const QUIET: Duration = Duration::from_secs(10);
/// Messages whose last writing is remembered.
const REMEMBERED_MAX: usize = 1024;

/// Starts logging for the process.
pub fn start(format: LogFormat, filter: &str) {
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // The configuration has read it before.
    let filter = filter.parse().unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let lines = Lines { json, clock: SystemClock::default(), written: Mutex::default() };
    let written = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(lines);
    let subscriber = tracing_subscriber::registry().with(written).with::<Targets>(filter);
    // A second start (tests) keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    messaging::supervise::watch_panics();
}

struct Lines {
    json: bool,
    clock: SystemClock,
    /// When a message was last written, and how many like it were left out since.
    written: Mutex<HashMap<String, (Instant, u64)>>,
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String, bool)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.rest.push((field.name(), text, false));
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.rest.push((field.name(), value.to_owned(), false));
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.push((field.name(), value.to_string(), true));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.rest.push((field.name(), value.to_string(), true));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.push((field.name(), value.to_string(), true));
    }
}

impl Lines {
    /// How many identical lines were left out, if this one is to be written.
    fn suppressed(&self, level: Level, target: &str, message: &str) -> Option<u64> {
        if level > Level::WARN {
            return Some(0);
        }
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = format!("{target} {message}");
        let now = Instant::now();
        if let Some((at, left_out)) = written.get_mut(&key) {
            if now.duration_since(*at) < QUIET {
                *left_out += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(left_out));
        }
        if written.len() >= REMEMBERED_MAX {
            written.retain(|_, (at, _)| now.duration_since(*at) < QUIET);
        }
        if written.len() < REMEMBERED_MAX {
            written.insert(key, (now, 0));
        }
        Some(0)
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        metrics::LOG_LINES.at([level_index(level)]).increment(1);
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = event.metadata().target();
        let Some(suppressed) = self.suppressed(level, target, &fields.message) else { return Ok(()) };
        if suppressed > 0 {
            fields.rest.push(("suppressed", suppressed.to_string(), true));
        }
        let at = self.clock.now();
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        if self.json {
            let name = level.as_str().to_ascii_lowercase();
            write!(out, r#"{{"ts":"{at}","level":"{name}","target":"{target}","msg":{}"#, quoted(&fields.message))?;
            for (name, value, bare) in &fields.rest {
                if *bare {
                    write!(out, r#","{name}":{value}"#)?;
                } else {
                    write!(out, r#","{name}":{}"#, quoted(value))?;
                }
            }
            return writeln!(out, "}}");
        }
        write!(out, "{at} {level:5} {}", neutral(&fields.message))?;
        for (name, value, _) in &fields.rest {
            write!(out, " {name}={}", neutral(value))?;
        }
        writeln!(out)
    }
}

/// Control characters of strangers do not reach the terminal.
fn neutral(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn level_index(level: Level) -> usize {
    let label = match level {
        Level::ERROR => metrics::LogLevel::Error,
        Level::WARN => metrics::LogLevel::Warn,
        Level::INFO => metrics::LogLevel::Info,
        _ => metrics::LogLevel::Debug,
    };
    label.index()
}
