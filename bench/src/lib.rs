//! What stands outside Trunkline: the platforms and the subscribers it talks to, as simulators whose answers a test chooses;
//! the load generator; and the checker that decides from outside histories alone whether the promises were kept.
//!
//! * [`platform`]: WhatsApp and Telegram as they look from outside, with a ledger of what they took;
//! * [`inbox`]: a subscriber that keeps every request, and can be slow, broken or gone;
//! * [`load`]: open-loop load, saturation against a bare server, reports;
//! * [`checker`]: histories in, violations out;
//! * [`s3`]: an S3-compatible store for media, strict about signatures;
//! * [`http`]: the small server and client that they share.
//!
//! Everything talks to loopback only and is bounded in count and time.

pub mod chance;
pub mod checker;
pub mod http;
pub mod inbox;
pub mod load;
pub mod mark;
pub mod platform;
pub mod s3;

/// Microseconds of this process's monotonic clock: one scale for all histories that one process writes.
pub fn monotonic_us() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed().as_micros() as u64
}

/// Locks a mutex whose holders do not panic.
pub(crate) fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

/// Where a part first stands in some bytes.
pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let (first, last) = (*part.first()?, bytes.len().checked_sub(part.len())?);
    (0..=last).find(|&at| bytes[at] == first && bytes[at..].starts_with(part))
}
