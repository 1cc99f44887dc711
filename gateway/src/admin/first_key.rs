//! The first tenant and its admin key, when there is nobody yet.

use messaging::clock::SharedClock;
use messaging::ids::TenantId;
use messaging::keeper::{ChangeError, DirectoryKeeper};
use messaging::seal::{Keyring, Secret};
use messaging::store::StoreError;
use messaging::tenant::Scope;

use crate::api::Newcomer;

/// The first tenant and the secret of its key, which may do everything. Shown once.
#[derive(Debug)]
pub struct FirstKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The key's secret.
    pub key: Secret,
}

/// There is a tenant already.
#[derive(Debug)]
struct NotEmpty;

/// Makes the first tenant and an admin key for it. None when the directory has a tenant already: then there was a first key.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn first_key(
    keeper: &DirectoryKeeper,
    keyring: &Keyring,
    clock: &SharedClock,
    name: &str,
) -> Result<Option<FirstKey>, StoreError> {
    let newcomer = Newcomer::draw(name, Scope::ALL, keyring, clock.now());
    let made = keeper.change(|directory| if directory.tenants().next().is_some() { Err(NotEmpty) } else { Ok(newcomer.changes()) }).await;
    match made {
        Ok(_) => Ok(Some(FirstKey { tenant: newcomer.tenant.id, key: newcomer.secret })),
        Err(ChangeError::Refused(NotEmpty)) => Ok(None),
        Err(ChangeError::Store(error)) => Err(error),
    }
}
