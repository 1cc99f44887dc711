//! What every process is asked when it ends: whether it panicked, lost something, or said an error that the test did not announce
//! (D51). It stands in the harness, so that no test can forget it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// How long the metrics of a process may take to come. One that is paused, or cut off, is judged by its log alone.
const METRICS_WAIT: Duration = Duration::from_secs(5);
/// Counters that are 0 in every process at any time.
const ALWAYS_ZERO: [&str; 2] = ["trunkline_panics_total", "trunkline_lost_records_total"];
/// Gauges that are 0 in every process once everything has come to rest.
const ZERO_AT_REST: [&str; 3] =
    ["trunkline_log_consumer_lag_records", "trunkline_log_spool_records", "trunkline_router_shard_queue_records"];
/// Faults that are shown; the rest is counted.
const SHOWN_MAX: usize = 12;

/// The error lines that a test announced, for all processes of its system. What is a panic cannot be announced as an error.
#[derive(Debug, Clone, Default)]
pub struct Announced(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    errors: Vec<String>,
    panics: Vec<String>,
}

impl Announced {
    /// Error lines that hold one of these texts are no faults of the test.
    pub fn errors(&self, texts: &[&str]) {
        self.0.lock().expect("nobody panics with it").errors.extend(texts.iter().map(|text| (*text).to_owned()));
    }

    /// A panic whose line holds one of these texts was planted by the test; nor is the counter of panics asked any more.
    pub fn panics(&self, texts: &[&str]) {
        self.0.lock().expect("nobody panics with it").panics.extend(texts.iter().map(|text| (*text).to_owned()));
    }

    /// What stands against a process: its log so far, and its metrics as far as they came.
    pub(crate) fn faults(&self, lines: &[String], metrics: Option<&str>) -> Vec<String> {
        let told = self.0.lock().expect("nobody panics with it");
        let holds = |texts: &[String], line: &str| texts.iter().any(|text| line.contains(text.as_str()));
        let mut faults = Vec::new();
        for line in lines {
            let fault = match kind(line) {
                Line::Panic => !holds(&told.panics, line),
                Line::Error => !holds(&told.errors, line) && !holds(&told.panics, line),
                Line::Other => false,
            };
            if fault {
                faults.push(line.clone());
            }
        }
        let samples = metrics.into_iter().flat_map(|text| not_zero(text, &ALWAYS_ZERO));
        faults.extend(samples.filter(|line| told.panics.is_empty() || !line.starts_with("trunkline_panics_total")));
        faults
    }
}

enum Line {
    Panic,
    Error,
    Other,
}

/// A panic's first line is plain text: the hook of the standard library writes it.
fn kind(line: &str) -> Line {
    match serde_json::from_str::<Value>(line) {
        Ok(value) if value["level"] == "error" => Line::Error,
        Ok(_) => Line::Other,
        Err(_) if line.contains("panicked at") => Line::Panic,
        Err(_) => Line::Other,
    }
}

fn not_zero<'a>(metrics: &'a str, families: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    let of_interest = metrics.lines().filter(|line| families.iter().any(|family| line.starts_with(family)));
    of_interest.filter(|line| !line.ends_with(" 0")).map(str::to_owned)
}

/// What stands in queues of a process that should have come to rest. Deliveries that wait for a broken endpoint are in none of these.
pub(crate) fn still_queued(metrics: &str) -> Vec<String> {
    not_zero(metrics, &ZERO_AT_REST).collect()
}

/// The faults as a failed test shows them.
pub(crate) fn show(name: &str, faults: &[String]) -> String {
    let shown = faults.iter().take(SHOWN_MAX).map(|line| format!("  {line}\n")).collect::<String>();
    format!("{name}: {} faults that the test did not announce:\n{shown}", faults.len())
}

/// The metrics of a process, read without a runtime, so that a value that is dropped can ask for them; none when they do not come.
pub(crate) fn metrics(admin: SocketAddr) -> Option<String> {
    let mut connection = TcpStream::connect_timeout(&admin, METRICS_WAIT).ok()?;
    connection.set_read_timeout(Some(METRICS_WAIT)).ok()?;
    connection.set_write_timeout(Some(METRICS_WAIT)).ok()?;
    connection.write_all(format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.starts_with("HTTP/1.1 200").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_announced_is_a_fault() {
        let panic = "thread 'router-1' (71) panicked at router/src/progress.rs:46:45:";
        let error = r#"{"level":"error","msg":"record left out","shard":3}"#;
        let quiet = r#"{"level":"warn","msg":"it said: panicked at noon"}"#;
        let (well, ill) = ("trunkline_panics_total 0\ntrunkline_lost_records_total 0\n", "trunkline_panics_total 2\n");
        let announced = |errors: &[&str], panics: &[&str]| {
            let all = Announced::default();
            all.errors(errors);
            all.panics(panics);
            all
        };
        // (errors announced, panics announced, log, metrics, faults)
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<&'a str>, usize);
        let table: [Case<'_>; 10] = [
            (&[], &[], quiet, Some(well), 0),
            (&[], &[], quiet, None, 0),
            (&[], &[], quiet, Some(ill), 1),
            (&[], &[], quiet, Some("trunkline_lost_records_total 1"), 1),
            (&[], &[], error, Some(well), 1),
            (&["record left out"], &[], error, Some(well), 0),
            (&["another"], &[], error, Some(well), 1),
            (&[], &[], panic, Some(ill), 2),
            (&["progress.rs"], &[], panic, None, 1),
            (&[], &["progress.rs"], panic, Some(ill), 0),
        ];
        for (errors, panics, line, metrics, count) in table {
            let faults = announced(errors, panics).faults(&[line.to_owned()], metrics);
            assert_eq!(faults.len(), count, "{errors:?} {panics:?} {line} {metrics:?}: {faults:?}");
        }
    }
}
