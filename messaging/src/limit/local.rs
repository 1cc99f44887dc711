//! Placeholder.
use super::*;
/// Placeholder.
pub struct LocalLimit;
#[allow(unused_variables, clippy::unimplemented)]
impl LocalLimit {
    pub(super) fn new(clock: SharedClock) -> Self {
        unimplemented!()
    }
}
#[allow(unused_variables, clippy::unimplemented)]
impl Limit for LocalLimit {
    fn admit(&self, budgets: &[(BudgetKey, Budget)]) -> Admission {
        unimplemented!()
    }
    fn hold(&self, key: BudgetKey, wait: Duration) {
        unimplemented!()
    }
    fn degraded(&self) -> bool {
        unimplemented!()
    }
    fn sweep(&self) {
        unimplemented!()
    }
}
