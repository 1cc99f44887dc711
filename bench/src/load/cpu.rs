//! CPU time of processes and threads, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::Serialize;

/// Clock ticks a second in `/proc/…/stat`: fixed by the kernel's interface on every platform that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds (user and system, all threads, also ended ones) that a process has used. Resolution 10 ms.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    read_stat(&format!("/proc/{pid}/stat")).map(|(_, seconds)| seconds)
}

/// CPU seconds of the calling thread, by the scheduler's own account (nanoseconds).
pub fn this_thread_seconds() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).ok_or_else(|| unreadable("schedstat"))?;
    Ok(nanos as f64 / 1e9)
}

/// What a process used, in all and by thread name (threads whose names differ only by a number at the end are one).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUse {
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds by thread name.
    pub threads: BTreeMap<String, f64>,
}

impl CpuUse {
    /// What a process has used until now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path().join("stat");
            // A thread may end between listing and reading.
            let Ok((name, seconds)) = read_stat(&path.to_string_lossy()) else { continue };
            *threads.entry(family(&name)).or_insert(0.0) += seconds;
        }
        Ok(Self { seconds: cpu_seconds(pid)?, threads })
    }

    /// What was used since an earlier look.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |name: &String| earlier.threads.get(name).copied().unwrap_or(0.0);
        let threads = self.threads.iter().map(|(name, seconds)| (name.clone(), (seconds - before(name)).max(0.0))).collect();
        Self { seconds: (self.seconds - earlier.seconds).max(0.0), threads }
    }

    /// Adds another's use.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        for (name, seconds) in &other.threads {
            *self.threads.entry(name.clone()).or_insert(0.0) += seconds;
        }
    }
}

fn family(name: &str) -> String {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '#').to_owned()
}

/// Name and CPU seconds of a `stat` file.
fn read_stat(path: &str) -> io::Result<(String, f64)> {
    let text = fs::read_to_string(path)?;
    parse_stat(&text).ok_or_else(|| unreadable(path))
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} cannot be read"))
}

/// The name stands in parentheses and may hold any character; `utime` and `stime` are the 12th and 13th fields behind it.
fn parse_stat(text: &str) -> Option<(String, f64)> {
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let name = text.get(start + 1..end)?.to_owned();
    let mut fields = text.get(end + 2..)?.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((name, (user + system) as f64 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_whatever_the_name() {
        let line = |name: &str| format!("42 ({name}) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 9 0 100 1 2");
        for name in ["node", "a b", "x) (y", "tokio-rt-worker"] {
            assert_eq!(parse_stat(&line(name)), Some((name.to_owned(), 2.0)), "{name}");
        }
        assert_eq!(parse_stat("garbage"), None);
        assert_eq!(family("tokio-3"), "tokio");
    }

    #[test]
    fn work_shows_up_in_total_and_by_thread() {
        let before = CpuUse::of(std::process::id()).unwrap();
        let spin = || {
            let mut sum = 0u64;
            let start = this_thread_seconds().unwrap();
            while this_thread_seconds().unwrap() - start < 0.05 {
                sum = (0..10_000u64).fold(sum, u64::wrapping_add);
            }
            std::hint::black_box(sum);
            CpuUse::of(std::process::id()).unwrap()
        };
        let after = std::thread::Builder::new().name("spinner-7".to_owned()).spawn(spin).unwrap().join().unwrap();
        let used = after.since(&before);
        assert!(used.seconds >= 0.03, "{used:?}");
        assert!(used.threads["spinner"] >= 0.03, "{used:?}");
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
