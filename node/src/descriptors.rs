//! File descriptors: strangers' connections never take those that files, calls out and the admin listener need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for files of log and store, the admin listener and the runtime.
const RESERVE: u64 = 256;

/// Raises the process's soft limit to the hard one. Gives the limit that holds; none: there is none.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the soft limit of file descriptors is not raised");
    }
    getrlimit(Resource::Nofile).current
}

/// How many connections the public listener takes: as configured, unless the limit leaves fewer. Of what the reserve leaves, two thirds are
/// for who comes in, one for calls out.
pub fn connections(configured: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return configured };
    let left = limit.saturating_sub(RESERVE.min(limit / 2)) / 3 * 2;
    let most = configured.min(usize::try_from(left).unwrap_or(usize::MAX));
    if most < configured {
        tracing::info!(configured, connections = most, limit, "http.max_connections is more than the limit of file descriptors allows");
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files_and_calls() {
        let table = [
            (20_000, None, 20_000),
            (20_000, Some(1_048_576), 20_000),
            (20_000, Some(1_024), 512),
            (100, Some(1_024), 100),
            (20_000, Some(256), 84),
        ];
        for (configured, limit, expected) in table {
            assert_eq!(connections(configured, limit), expected, "{configured} {limit:?}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let limit = raise();
        assert_eq!(limit, getrlimit(Resource::Nofile).maximum);
    }
}
