//! Where a run took place: without it a figure cannot be compared.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

/// Writes and syncs of the disk probe.
const SYNCS: usize = 50;

/// The machine, as far as it decides figures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Environment {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The load average of the last minute when the run began.
    pub load_average: f64,
    /// Median time of a 4 KiB write with fsync in the data directory, in microseconds; none: not measured.
    pub fsync_us: Option<u64>,
    /// Whether this program was built without optimisation: then no figure means anything.
    pub debug_build: bool,
}

impl Environment {
    /// Looks around; measures the disk under `data` when it is given. What cannot be read stays empty.
    pub fn look(data: Option<&Path>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            fsync_us: data.and_then(fsync_us),
            debug_build: cfg!(debug_assertions),
        }
    }
}

fn fsync_us(dir: &Path) -> Option<u64> {
    let path = dir.join(format!(".bench-fsync-{}", std::process::id()));
    let mut times = Vec::with_capacity(SYNCS);
    let mut file = fs::File::create(&path).ok()?;
    for _ in 0..SYNCS {
        let start = Instant::now();
        if file.write_all(&[0u8; 4_096]).and_then(|()| file.sync_data()).is_err() {
            break;
        }
        times.push(start.elapsed().as_micros() as u64);
    }
    // The probe's own file; if it stays, it is 200 KiB of zeros.
    let _ = fs::remove_file(&path);
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
