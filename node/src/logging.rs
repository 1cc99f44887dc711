//! Structured logs: text on a terminal, one JSON object a line otherwise. Identical warnings are written at most once in ten seconds:
//! the same text with the same fields, so that what is said of one account never hides what is said of another.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::hash::{Hash as _, Hasher as _};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock};
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
use tracing_subscriber::{Registry, reload};

/// Identical warnings and errors within this time are counted, not written.
const QUIET: Duration = Duration::from_secs(10);
/// Lines of one text with different fields that are written within that time.
const DIFFERENT_MAX: usize = 20;
/// Texts that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// The filter of the process's log, which an operator changes at run time.
pub struct Filter {
    configured: Targets,
    text: String,
    handle: reload::Handle<Targets, Registry>,
    /// What was set over the configured one, until when, and how often one was set: a later change ends an earlier one's time.
    set: Mutex<(Option<(String, Instant)>, u64)>,
}

static FILTER: OnceLock<Arc<Filter>> = OnceLock::new();

/// The process's filter, once logging has started.
pub fn filter() -> Option<Arc<Filter>> {
    FILTER.get().cloned()
}

impl Filter {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<(String, Instant)>, u64)> {
        self.set.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn reset_after(self: Arc<Self>, time: Duration, change: u64) {
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if self.lock().1 == change {
                gateway::LogFilter::reset(&*self);
            }
        });
    }
}

impl gateway::LogFilter for Filter {
    fn now(&self) -> (String, Option<Duration>) {
        match &self.lock().0 {
            Some((text, until)) => (text.clone(), Some(until.saturating_duration_since(Instant::now()))),
            None => (self.text.clone(), None),
        }
    }

    fn set(&self, text: &str, time: Duration) -> Result<(), String> {
        if let Some(fault) = messaging::config::log_filter_fault(text) {
            return Err(fault);
        }
        let targets: Targets = text.parse().map_err(|error| format!("{text:?} cannot be read: {error}"))?;
        self.handle.reload(targets).map_err(|error| error.to_string())?;
        let change = {
            let mut set = self.lock();
            *set = (Some((text.to_owned(), Instant::now() + time)), set.1 + 1);
            set.1
        };
        if let Some(this) = filter() {
            this.reset_after(time, change);
        }
        Ok(())
    }

    fn reset(&self) {
        let mut set = self.lock();
        *set = (None, set.1 + 1);
        // The subscriber lives as long as the process.
        let _ = self.handle.reload(self.configured.clone());
    }
}

/// Starts logging for the process.
pub fn start(format: LogFormat, filter: &str) {
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // The configuration has read it before.
    let text = filter.to_owned();
    let filter: Targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let (layer, handle) = reload::Layer::new(filter.clone());
    let lines = Lines { json, clock: SystemClock::default(), written: Mutex::default() };
    let written = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(lines);
    let subscriber = tracing_subscriber::registry().with(layer).with(written);
    // A second start (tests) keeps the first.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = FILTER.set(Arc::new(Filter { configured: filter, text, handle, set: Mutex::default() }));
    }
    messaging::supervise::watch_panics();
}

struct Lines {
    json: bool,
    clock: SystemClock,
    /// By text, what was said lately.
    written: Mutex<HashMap<String, Said>>,
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

/// What was said lately in one text.
struct Said {
    since: Instant,
    /// Hashes of the fields of the lines that were written.
    lines: HashSet<u64>,
    left_out: u64,
}

impl Lines {
    /// How many lines of its text were left out before, if this one is to be written.
    fn suppressed(&self, level: Level, target: &str, fields: &Fields, now: Instant) -> Option<u64> {
        if level > Level::WARN {
            return Some(0);
        }
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = format!("{target} {}", fields.message);
        let mut hasher = std::hash::DefaultHasher::new();
        fields.rest.hash(&mut hasher);
        let line = hasher.finish();
        if let Some(said) = written.get_mut(&text) {
            if now.duration_since(said.since) >= QUIET {
                let before = std::mem::replace(said, Said { since: now, lines: HashSet::from([line]), left_out: 0 });
                return Some(before.left_out);
            }
            if said.lines.len() < DIFFERENT_MAX && said.lines.insert(line) {
                return Some(0);
            }
            said.left_out += 1;
            return None;
        }
        if written.len() >= REMEMBERED_MAX {
            written.retain(|_, said| now.duration_since(said.since) < QUIET);
        }
        if written.len() >= REMEMBERED_MAX {
            // A flood of different texts, of which only the counter of lines speaks.
            return None;
        }
        written.insert(text, Said { since: now, lines: HashSet::from([line]), left_out: 0 });
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
        let Some(suppressed) = self.suppressed(level, target, &fields, Instant::now()) else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_hides_only_its_like() {
        let lines = Lines { json: true, clock: SystemClock::default(), written: Mutex::default() };
        let start = Instant::now();
        let about = |account: usize| Fields { message: "account broken".into(), rest: vec![("account", account.to_string(), false)] };
        let say = |level, account, after_s| lines.suppressed(level, "router", &about(account), start + Duration::from_secs(after_s));
        let table = [
            ("the first is written", Level::WARN, 1, 0, Some(0)),
            ("its like is not", Level::WARN, 1, 1, None),
            ("another account's is", Level::WARN, 2, 1, Some(0)),
            ("nor is its like", Level::WARN, 2, 9, None),
            ("after a while it is, with what was left out", Level::WARN, 1, 10, Some(2)),
            ("information is never held back", Level::INFO, 1, 10, Some(0)),
        ];
        for (name, level, account, after_s, expected) in table {
            assert_eq!(say(level, account, after_s), expected, "{name}");
        }
        let written = (100..200).filter(|account| say(Level::ERROR, *account, 11).is_some()).count();
        assert_eq!(written, DIFFERENT_MAX - 1, "a flood of different lines is held back");
    }
}
