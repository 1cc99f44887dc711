//! Budgets: rate limits of the outside world. Metered locally with `governor`; a shared backend leases blocks to processes.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::outcome::named_enum;

pub mod local;
#[cfg(feature = "redis")]
pub mod redis;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

named_enum! {
/// Whose budget it is: the metric's label.
BudgetScope {
    /// An API key.
    ApiKey = "api_key",
    /// A tenant.
    Tenant = "tenant",
    /// A channel account.
    Account = "account",
    /// An account and a recipient.
    Pair = "pair",
    /// A subscriber endpoint.
    Endpoint = "endpoint",
    /// This process.
    Global = "global",
}
}

/// A rate with a burst: `rate_per_second` on average, up to `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Whose it is.
    pub scope: BudgetScope,
    /// Average rate. Not zero.
    pub rate_per_second: f64,
    /// How many at once. Not zero.
    pub burst: u32,
}

/// The key of a budget: its scope and 16 bytes that tell its owner (an id, or a keyed hash of several).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BudgetKey {
    /// The scope.
    pub scope: BudgetScope,
    /// The owner.
    pub owner: [u8; 16],
}

/// The answer of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go; one is taken from every budget.
    Go,
    /// Not before this long from now.
    Wait {
        /// How long.
        wait: Duration,
        /// Whose budget says so.
        scope: BudgetScope,
    },
}

/// Budgets. The contract: over any span t, at most `burst + rate × t` admissions per key; `Wait` is never longer than it takes one
/// unit to come free; the backend being away costs accuracy, never correctness; every map of keys is capped and swept.
pub trait Limit: Send + Sync {
    /// Takes one from each budget, or says how long to wait. Order the budgets narrowest first: a later refusal does not give back.
    fn admit(&self, budgets: &[(BudgetKey, Budget)]) -> Admission;
    /// The platform said to hold: nothing is admitted for this key until then.
    fn hold(&self, key: BudgetKey, wait: Duration);
    /// Whether limits run on local estimates because a shared backend is away.
    fn degraded(&self) -> bool;
    /// Forgets idle keys; called once a minute.
    fn sweep(&self);
}

/// Opens the local limiter.
pub fn open_local(clock: SharedClock) -> Arc<dyn Limit> {
    Arc::new(local::LocalLimit::new(clock))
}
