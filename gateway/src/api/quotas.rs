//! Quotas of tenants: what the API asks before it makes or takes something, and how it tells of them. The rules are `messaging::quota`'s.

use std::collections::BTreeMap;

use http::{HeaderValue, header};
use messaging::directory::Directory;
use messaging::ids::TenantId;
use messaging::limit::{Admission, Budget, BudgetKey, BudgetScope};
use messaging::metrics;
use messaging::quota::{Exceeded, LIMIT_MAX, OwnQuotas, Quota, Quotas};
use serde::Serialize;

use super::Call;
use super::json::Reader;
use crate::problem::{Code, Problem, whole_seconds};

/// One quota of a tenant, as an administrator sees it.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    limit: u32,
    /// None: it is a rate, or this process does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
}

impl Call<'_> {
    /// The limits that hold for a tenant.
    fn quotas(&self, directory: &Directory, tenant: TenantId) -> Quotas {
        let configured = self.shared().options.quotas;
        directory.quotas_of(tenant).map_or(configured, |own| configured.with(own))
    }

    /// How much of a quota is used; none: it is a rate, or this process does not know.
    fn used(&self, directory: &Directory, tenant: TenantId, quota: Quota) -> Option<u64> {
        match quota {
            Quota::Accounts => Some(directory.counts_of(tenant).accounts as u64),
            Quota::Endpoints => Some(directory.counts_of(tenant).endpoints as u64),
            Quota::Keys => Some(directory.counts_of(tenant).keys as u64),
            Quota::WaitingSends => self.shared().parts.outlook.waiting_of(tenant),
            Quota::ApiRequests | Quota::Messages => None,
        }
    }

    /// Whether a tenant may have one more of something.
    pub(super) fn one_more(&self, directory: &Directory, tenant: TenantId, quota: Quota) -> Result<(), Problem> {
        let Some(used) = self.used(directory, tenant, quota) else { return Ok(()) };
        self.quotas(directory, tenant).one_more(quota, used).map_err(refusal)
    }

    /// Every quota of a tenant and what of it is used.
    pub(super) fn usage(&self, directory: &Directory, tenant: TenantId) -> BTreeMap<Quota, Usage> {
        let quotas = self.quotas(directory, tenant);
        let usage = |quota: Quota| Usage { limit: quotas.limit(quota), used: self.used(directory, tenant, quota) };
        Quota::ALL.iter().map(|quota| (*quota, usage(*quota))).collect()
    }

    /// Takes one request from the key's budget and from its tenant's: keys are free to make, so that the tenant's is the one that binds.
    pub(super) fn admit(&self, directory: &Directory) -> Result<(), Problem> {
        let options = &self.shared().options;
        let quotas = self.quotas(directory, self.payer);
        let key = BudgetKey { scope: BudgetScope::ApiKey, owner: self.caller.key.0 };
        let of_key = self.budget(BudgetScope::ApiKey, options.api_per_key);
        let tenant = BudgetKey { scope: BudgetScope::Tenant, owner: self.payer.0 };
        let of_tenant = self.budget(BudgetScope::Tenant, quotas.limit(Quota::ApiRequests).into());
        let Admission::Wait { wait, scope } = self.shared().parts.limit.admit(&[(key, of_key), (tenant, of_tenant)]) else { return Ok(()) };
        let (policy, burst, problem) = if scope == BudgetScope::Tenant {
            let exceeded = quotas.too_fast(Quota::ApiRequests);
            (exceeded.name.name(), of_tenant.burst, refusal(exceeded))
        } else {
            let problem = Problem::new(Code::QuotaExceeded, "this key makes too many requests");
            ("key", of_key.burst, problem.with("violated-policies", vec!["key"]))
        };
        let window = (options.api_burst.ceil() as u64).max(1);
        let header = |text: String| HeaderValue::try_from(text).expect("digits, letters and quotes are visible ASCII");
        Err(problem
            .retry_after(wait)
            .header(header::HeaderName::from_static("ratelimit-policy"), header(format!("\"{policy}\";q={burst};w={window}")))
            .header(header::HeaderName::from_static("ratelimit"), header(format!("\"{policy}\";r=0;t={}", whole_seconds(wait)))))
    }

    /// Takes one message of a batch from the tenant's budget.
    pub(super) fn admit_message(&self) -> Result<(), Problem> {
        let tenant = self.tenant().id();
        let quotas = self.quotas(&self.directory(), tenant);
        let key = BudgetKey { scope: BudgetScope::TenantMessages, owner: tenant.0 };
        let budget = self.budget(BudgetScope::TenantMessages, quotas.limit(Quota::Messages).into());
        let Admission::Wait { wait, .. } = self.shared().parts.limit.admit(&[(key, budget)]) else { return Ok(()) };
        Err(refusal(quotas.too_fast(Quota::Messages)).retry_after(wait))
    }

    fn budget(&self, scope: BudgetScope, rate: f64) -> Budget {
        let rate_per_second = rate.max(f64::MIN_POSITIVE);
        let burst = (rate_per_second * self.shared().options.api_burst).ceil().max(1.0) as u32;
        Budget { scope, rate_per_second, burst }
    }
}

fn refusal(exceeded: Exceeded) -> Problem {
    metrics::QUOTA_REFUSALS.at([exceeded.name.index()]).increment(1);
    let member = serde_json::to_value(exceeded).expect("our own types serialise");
    Problem::new(Code::QuotaExceeded, exceeded.to_string()).with("violated-policies", vec![exceeded.name.name()]).with("quota", member)
}

/// The member `quotas` of a tenant: a limit of its own for each name, or null for the configured one.
pub(super) fn own(reader: &mut Reader<'_>) -> Vec<(Quota, Option<u32>)> {
    let Some(map) = reader.object("quotas") else { return Vec::new() };
    let mut inner = Reader::new(map, reader.at("quotas"));
    let mut own = Vec::new();
    for quota in Quota::ALL.iter().copied() {
        if map.get(quota.name()).is_some_and(serde_json::Value::is_null) {
            inner.value(quota.name());
            own.push((quota, None));
        } else if let Some(limit) = inner.whole(quota.name(), quota.least().into()..=LIMIT_MAX.into()) {
            own.push((quota, Some(limit as u32)));
        }
    }
    reader.faults(inner.end());
    own
}

/// What a tenant has of its own after a change.
pub(super) fn changed(before: Option<&OwnQuotas>, change: &[(Quota, Option<u32>)]) -> OwnQuotas {
    let mut after = before.cloned().unwrap_or_default();
    for (quota, limit) in change {
        match limit {
            Some(limit) => drop(after.insert(*quota, *limit)),
            None => drop(after.remove(quota)),
        }
    }
    after
}
