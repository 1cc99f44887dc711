//! Facts that the kernel keeps of this process, in the names that every Prometheus client uses. Read at each scrape.

use std::fmt::Write as _;
use std::fs;

/// Ticks a second in `/proc/*/stat`: fixed at 100 in the kernel's user interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the `process_*` families. A fact that the system does not tell is left out.
pub(super) fn write(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);

    family(out, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu_seconds(&stat));
    family(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident_bytes(&status));
    family(out, "process_open_fds", "gauge", "Number of open file descriptors.", open_fds);
    family(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.", max_fds(&limits));
    let help = "Start time of the process since the Unix epoch in seconds.";
    family(out, "process_start_time_seconds", "gauge", help, start_seconds(&stat, &boot));
}

fn family(out: &mut String, name: &str, kind: &str, help: &str, value: Option<f64>) {
    if let Some(value) = value {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
    }
}

/// Field `number` of `/proc/self/stat`, counted from 1 as in proc(5). The name in parentheses may hold anything, so count after it.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    const FIRST_AFTER_NAME: usize = 3;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number - FIRST_AFTER_NAME)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    const UTIME: usize = 14;
    const STIME: usize = 15;
    Some((stat_field(stat, UTIME)? + stat_field(stat, STIME)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    const STARTTIME: usize = 22;
    let booted: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + stat_field(stat, STARTTIME)? / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_kernels_text() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 1 0 0 0 250 150 0 0 20 0 4 0 12345 1000 10 0";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_123.45));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!(max_fds("Limit  Soft Hard Units\nMax open files            1024                 4096 files\n"), Some(1024.0));
        assert_eq!((cpu_seconds(""), start_seconds("", ""), resident_bytes(""), max_fds("")), (None, None, None, None));
    }
}
