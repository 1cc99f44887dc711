//! What one tenant may have, ask for and let wait, so that none starves or spoils the others. Pure: counts come in, verdicts go out.
//!
//! The limits hold for every tenant (`[quotas]`), except where an administrator gave one a limit of its own. What platforms send in is under
//! no quota: most of them lose for good what is refused, and the tenant could not help it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::outcome::named_enum;

/// The highest limit that can be set.
pub const LIMIT_MAX: u32 = 1_000_000_000;

named_enum! {
/// What is limited. New ones stand at the end: stored rows name them by their place.
Quota {
    /// Channel accounts that it has.
    Accounts = "accounts",
    /// Endpoints that it has.
    Endpoints = "endpoints",
    /// API keys that it has, those that have ended included.
    Keys = "keys",
    /// Sends that were accepted and have not gone yet.
    WaitingSends = "waiting_sends",
    /// Requests to the API in a second, with all its keys together.
    ApiRequests = "api_requests",
    /// Messages that it sends in batches in a second.
    Messages = "messages",
}
}

impl Quota {
    /// The lowest limit that makes sense. Nobody may be shut out of the API by a zero: nobody could undo it.
    pub const fn least(self) -> u32 {
        match self {
            Self::Accounts | Self::Endpoints | Self::Keys | Self::WaitingSends => 0,
            Self::ApiRequests | Self::Messages => 1,
        }
    }
}

/// The limits that one tenant has of its own.
pub type OwnQuotas = BTreeMap<Quota, u32>;

/// The limits that hold for a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas([u32; Quota::ALL.len()]);

impl Quotas {
    /// Asks for each limit.
    pub fn new(mut limit: impl FnMut(Quota) -> u32) -> Self {
        let mut limits = [0; Quota::ALL.len()];
        for quota in Quota::ALL {
            limits[quota.index()] = limit(*quota);
        }
        Self(limits)
    }

    /// These, but for what a tenant has of its own.
    pub fn with(mut self, own: &OwnQuotas) -> Self {
        for (quota, limit) in own {
            self.0[quota.index()] = *limit;
        }
        self
    }

    /// One limit.
    pub fn limit(&self, quota: Quota) -> u32 {
        self.0[quota.index()]
    }

    /// Whether one more fits beside those that there are.
    ///
    /// # Errors
    /// It does not.
    pub fn one_more(&self, quota: Quota, used: u64) -> Result<(), Exceeded> {
        let limit = self.limit(quota);
        if used < u64::from(limit) { Ok(()) } else { Err(Exceeded { name: quota, limit, used: Some(used) }) }
    }

    /// A rate is used up, its meter says.
    pub fn too_fast(&self, quota: Quota) -> Exceeded {
        Exceeded { name: quota, limit: self.limit(quota), used: None }
    }
}

/// As configured where nothing is set.
impl Default for Quotas {
    fn default() -> Self {
        Self::new(|quota| match quota {
            Quota::Accounts | Quota::Endpoints => 1_000,
            Quota::Keys => 200,
            Quota::WaitingSends => 1_000_000,
            Quota::ApiRequests => 2_000,
            Quota::Messages => 5_000,
        })
    }
}

/// A quota is used up. This goes out, in the problem's member `quota`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exceeded {
    /// Which.
    pub name: Quota,
    /// How much there may be.
    pub limit: u32,
    /// How much there is; none: it is a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, used) = (self.limit, self.used.unwrap_or_default());
        match self.name {
            Quota::Accounts => write!(f, "this tenant may have {limit} accounts, and has {used}"),
            Quota::Endpoints => write!(f, "this tenant may have {limit} endpoints, and has {used}"),
            Quota::Keys => write!(f, "this tenant may have {limit} API keys, and has {used}"),
            Quota::WaitingSends => write!(f, "of this tenant's sends {limit} may wait, and {used} do"),
            Quota::ApiRequests => write!(f, "this tenant may make {limit} API requests a second, with all its keys together"),
            Quota::Messages => write!(f, "this tenant may send {limit} messages a second in batches"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_fits_below_the_limit_and_a_tenants_own_goes_first() {
        let all = Quotas::default();
        let own = all.with(&OwnQuotas::from([(Quota::Endpoints, 3), (Quota::Keys, 0), (Quota::Accounts, 5_000)]));
        let cases = [
            (all, Quota::Endpoints, 999, true),
            (all, Quota::Endpoints, 1_000, false),
            // There may be more than is allowed: the limit was lowered.
            (all, Quota::Endpoints, 3_450, false),
            (own, Quota::Endpoints, 2, true),
            (own, Quota::Endpoints, 3, false),
            (own, Quota::Keys, 0, false),
            (own, Quota::Accounts, 4_999, true),
            (own, Quota::WaitingSends, 999_999, true),
            (own, Quota::WaitingSends, 1_000_000, false),
        ];
        for (quotas, quota, used, fits) in cases {
            let verdict = quotas.one_more(quota, used);
            assert_eq!(verdict.is_ok(), fits, "{quota:?}, {used}");
            if let Err(exceeded) = verdict {
                assert_eq!(exceeded, Exceeded { name: quota, limit: quotas.limit(quota), used: Some(used) });
            }
        }
    }

    /// Rows of tenants are stored so: a quota has its place for ever.
    #[test]
    fn a_stored_row_names_quotas_by_their_place() {
        let own: OwnQuotas = Quota::ALL.iter().map(|quota| (*quota, 7)).collect();
        let golden = [6, 0, 7, 1, 7, 2, 7, 3, 7, 4, 7, 5, 7];
        assert_eq!(postcard::to_stdvec(&own).unwrap(), golden);
        assert_eq!(postcard::from_bytes::<OwnQuotas>(&golden[..]).unwrap(), own);
        assert_eq!(Quota::NAMES, ["accounts", "endpoints", "keys", "waiting_sends", "api_requests", "messages"]);
    }

    #[test]
    fn what_is_told_names_the_quota_its_limit_and_its_use() {
        for quota in Quota::ALL.iter().copied() {
            let counted = Exceeded { name: quota, limit: 17, used: Some(23) };
            assert_eq!(serde_json::to_value(counted).unwrap(), serde_json::json!({"name": quota.name(), "limit": 17, "used": 23}));
            assert!(counted.to_string().contains("17"), "{counted}");
            let quotas = Quotas::new(|_| 17);
            assert_eq!(serde_json::to_value(quotas.too_fast(quota)).unwrap(), serde_json::json!({"name": quota.name(), "limit": 17}));
            assert!(Quotas::default().limit(quota) >= quota.least(), "{quota:?}");
        }
    }
}
