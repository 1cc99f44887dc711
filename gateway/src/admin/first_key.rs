//! The first tenant and its admin key, when there is nobody yet.

use messaging::clock::SharedClock;
use messaging::keeper::{ChangeError, DirectoryKeeper};
use messaging::seal::{Keyring, Secret};
use messaging::store::StoreError;
use messaging::tenant::Scope;

use crate::api::Newcomer;

/// What the first tenant is called until somebody gives it another name.
const NAME: &str = "default";

/// There is a tenant already.
#[derive(Debug)]
struct NotEmpty;

/// Makes the first tenant with an admin key, and gives the key's secret: the only time that it can be read. None when the
/// directory has a tenant already: then there was a first key.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn first_key(keeper: &DirectoryKeeper, keyring: &Keyring, clock: &SharedClock) -> Result<Option<Secret>, StoreError> {
    let newcomer = Newcomer::draw(NAME, Scope::ALL, keyring, clock.now());
    let made = keeper.change(|directory| if directory.tenants().next().is_some() { Err(NotEmpty) } else { Ok(newcomer.changes()) }).await;
    match made {
        Ok(_) => Ok(Some(newcomer.secret)),
        Err(ChangeError::Refused(NotEmpty)) => Ok(None),
        Err(ChangeError::Store(error)) => Err(error),
    }
}
