//! The tenant as a type: made only from a verified credential or an account path, and wanted by every call that
//! touches a tenant's data.

use std::fmt;

use crate::ids::{AccountId, KeyId, TenantId};

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Send messages, receipts and reactions.
    MessagesSend,
    /// Read messages, windows and conversations.
    MessagesRead,
    /// Read accounts, endpoints and keys.
    ConfigRead,
    /// Change accounts, endpoints and keys.
    ConfigWrite,
    /// Read the event feed, deliveries and attempts.
    EventsRead,
    /// Everything, for every tenant: tenants themselves, quarantine, admin routes.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [Self::MessagesSend, Self::MessagesRead, Self::ConfigRead, Self::ConfigWrite, Self::EventsRead, Self::Admin];

    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessagesSend => "messages:send",
            Self::MessagesRead => "messages:read",
            Self::ConfigRead => "config:read",
            Self::ConfigWrite => "config:write",
            Self::EventsRead => "events:read",
            Self::Admin => "admin",
        }
    }

    /// The scope of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// From a list.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | (1 << scope as u8)))
    }
    /// Whether the set holds a scope. `admin` holds all.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0 || self.0 & (1 << Scope::Admin as u8) != 0
    }
    /// The members, in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & (1 << *scope as u8) != 0)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::name)).finish()
    }
}

/// On whose behalf something is done. There is no way to make one from bytes that a stranger sent: only
/// `directory::Directory` (a key that was checked, an account of the path that was verified) and the readers of our own
/// log make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenant {
    id: TenantId,
}

impl Tenant {
    /// For the directory and the log's reader only.
    pub(crate) fn verified(id: TenantId) -> Self {
        Self { id }
    }

    /// For tests of other crates' pure parts.
    #[cfg(any(test, feature = "conformance"))]
    pub fn for_tests(id: TenantId) -> Self {
        Self { id }
    }

    /// The tenant's id.
    pub fn id(self) -> TenantId {
        self.id
    }
}

/// Who made an API request, after its key was checked.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The tenant that the key belongs to.
    pub tenant: Tenant,
    /// The key.
    pub key: KeyId,
    /// What the key may do.
    pub scopes: Scopes,
}

/// An account of a tenant, checked to belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owned {
    /// The owner.
    pub tenant: Tenant,
    /// The account.
    pub account: AccountId,
}
