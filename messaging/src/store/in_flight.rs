//! The gauge of store requests that are under way, for every backend.

use crate::metrics;

/// Counts a request as long as it lives: its caller may let go of it.
pub(super) struct InFlight;

impl InFlight {
    pub(super) fn begin() -> Self {
        metrics::STORE_REQUESTS_IN_FLIGHT.at([]).increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::STORE_REQUESTS_IN_FLIGHT.at([]).decrement(1.0);
    }
}
