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
    /// A tenant, with all its API keys together.
    Tenant = "tenant",
    /// A tenant's messages in batches.
    TenantMessages = "tenant_messages",
    /// A channel account.
    Account = "account",
    /// An account and a recipient.
    Pair = "pair",
    /// A kind of content of an account.
    Kind = "kind",
    /// A page, whoever sends through it.
    Page = "page",
    /// A chat with many people in it.
    Chat = "chat",
    /// A route of the platform's API.
    Route = "route",
    /// An app of the platform, for all its accounts.
    App = "app",
    /// A subscriber endpoint.
    Endpoint = "endpoint",
    /// This process.
    Global = "global",
}
}

impl BudgetScope {
    /// Whether others of the same account may go on while this one waits.
    pub fn is_narrow(self) -> bool {
        match self {
            Self::Pair | Self::Chat | Self::Route | Self::Kind => true,
            Self::ApiKey | Self::Tenant | Self::TenantMessages | Self::Account | Self::Page | Self::App | Self::Endpoint | Self::Global => {
                false
            }
        }
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
