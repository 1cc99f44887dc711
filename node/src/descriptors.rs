//! File descriptors: strangers' connections never take those that files, calls out and the admin listener need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for files of log and store, the admin listener and the runtime.
const RESERVE: u64 = 256;
/// Most connections for calls out.
const OUT_MAX: usize = 65_536;

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

/// Connections that the limit of file descriptors leaves room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of the public listener.
    pub public: usize,
    /// Of these, from one address.
    pub address: usize,
    /// Calls out.
    pub out: usize,
}

impl Room {
    /// As configured, unless the limit leaves fewer. Of what the reserve leaves, two thirds are for who comes in, one for calls out. One
    /// address never has more than half: what one stranger holds open must not keep the others out.
    pub fn of(connections: usize, per_address: usize, limit: Option<u64>) -> Self {
        let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVE.min(limit / 2))) / 3;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let public = connections.min(left.saturating_mul(2));
        Self { public, address: per_address.min(public.div_ceil(2)), out: left.min(OUT_MAX) }
    }

    /// Says it where the limit leaves less than was configured.
    pub fn tell(self, configured: usize, limit: Option<u64>) {
        if self.public < configured {
            let connections = self.public;
            tracing::info!(configured, connections, limit, "http.max_connections is more than the limit of file descriptors allows");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_files_and_calls() {
        let table = [
            ((20_000, 2_000), None, (20_000, 2_000, OUT_MAX)),
            ((20_000, 2_000), Some(1_048_576), (20_000, 2_000, OUT_MAX)),
            ((20_000, 2_000), Some(20_000), (13_162, 2_000, 6_581)),
            ((20_000, 2_000), Some(1_024), (512, 256, 256)),
            ((100, 2_000), Some(1_024), (100, 50, 256)),
            ((20_000, 2_000), Some(256), (84, 42, 42)),
        ];
        for ((connections, per_address), limit, (public, address, out)) in table {
            assert_eq!(Room::of(connections, per_address, limit), Room { public, address, out }, "{connections} {limit:?}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let limit = raise();
        assert_eq!(limit, getrlimit(Resource::Nofile).maximum);
    }
}
