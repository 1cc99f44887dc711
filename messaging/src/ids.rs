//! Typed ids: a prefix and 128 bits in base32.
//!
//! What a person makes (accounts, endpoints, keys, sends without an `Idempotency-Key`) is a UUIDv7. What can come
//! twice (events, deliveries, conversations, inbound messages, keyed sends) is a keyed hash of its origin, so that
//! the second is the first. Hashes are keyed with an installation secret and bound to the tenant: nobody can guess a
//! phone number from an id.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use crate::clock::Timestamp;

/// Length of an id in bytes.
pub const ID_BYTES: usize = 16;
/// Length of an id's text after its prefix.
const ID_TEXT: usize = 26;

static BASE32: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().expect("the alphabet has 32 symbols")
});

/// Text that is not an id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}…")]
pub struct BadId {
    /// The prefix that was wanted.
    pub prefix: &'static str,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; ID_BYTES]);

        impl $name {
            /// The prefix of this kind of id.
            pub const PREFIX: &'static str = $prefix;

            /// A new id for something a person makes: UUIDv7, sortable by time. Time and chance come in as arguments.
            pub fn draw(now: Timestamp, random: [u8; 10]) -> Self {
                let millis = now.as_millis();
                Self(*uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_bytes())
            }

            /// The 128 bits.
            pub fn bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // In one piece: ids stand in every event several times.
                let mut text = [0u8; $prefix.len() + ID_TEXT];
                let (prefix, rest) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                BASE32.encode_mut(&self.0, rest);
                f.write_str(std::str::from_utf8(&text).expect("base32 is ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = BadId { prefix: $prefix };
                let rest = text.strip_prefix($prefix).ok_or(bad)?;
                if rest.len() != ID_TEXT {
                    return Err(bad);
                }
                let mut bytes = [0u8; ID_BYTES];
                BASE32.decode_mut(rest.as_bytes(), &mut bytes).map_err(|_| bad)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; ID_BYTES]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id_type!(/// The company whose data it is.
    TenantId, "ten_");
id_type!(/// One channel account of a tenant.
    AccountId, "acc_");
id_type!(/// A subscriber's URL.
    EndpointId, "ep_");
id_type!(/// An API key (not its secret).
    KeyId, "key_");
id_type!(/// (tenant, account, contact): the unit of order.
    ConversationId, "cnv_");
id_type!(/// A person as one account sees them.
    ContactId, "con_");
id_type!(/// A message, in or out.
    MessageId, "msg_");
id_type!(/// What subscribers receive.
    EventId, "evt_");
id_type!(/// One event to one endpoint.
    DeliveryId, "dlv_");
id_type!(/// A quarantined record.
    QuarantineId, "qua_");
id_type!(/// A picture, sound, film or file.
    MediaId, "med_");

impl EventId {
    /// The event that announces an inbound message shares the message's bits: one index row serves both.
    pub fn of_message(message: MessageId) -> Self {
        Self(message.0)
    }
}

/// A platform's own id, hashed with its account: the key of the platform-id index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlatformRef(pub [u8; ID_BYTES]);

/// The hash under which an API key is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 32]);

/// Computes ids from origins, keyed with the installation's secret.
#[derive(Clone)]
pub struct IdHasher(Hmac<Sha256>);

impl fmt::Debug for IdHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdHasher(redacted)")
    }
}

impl IdHasher {
    /// From the installation's id secret (see `seal::Keyring::id_hasher`).
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    fn full(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(domain.as_bytes());
        for part in parts {
            mac.update(&(part.len() as u32).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn short(&self, domain: &str, parts: &[&[u8]]) -> [u8; ID_BYTES] {
        let full = self.full(domain, parts);
        full[..ID_BYTES].try_into().expect("a digest is longer than an id")
    }

    /// The conversation of an account with the holder of a handle (see `content::Handle`).
    pub fn conversation(&self, tenant: TenantId, account: AccountId, handle: &str) -> ConversationId {
        ConversationId(self.short("cnv", &[&tenant.0, &account.0, handle.as_bytes()]))
    }

    /// The contact behind a conversation.
    pub fn contact(&self, conversation: ConversationId) -> ContactId {
        ContactId(self.short("con", &[&conversation.0]))
    }

    /// A message that the platform brought (inbound or echo).
    pub fn inbound_message(&self, tenant: TenantId, account: AccountId, platform_id: &str) -> MessageId {
        MessageId(self.short("msg", &[&tenant.0, &account.0, platform_id.as_bytes()]))
    }

    /// A send with an `Idempotency-Key`: the same key in the same tenant is the same message.
    pub fn keyed_message(&self, tenant: TenantId, idempotency_key: &str) -> MessageId {
        MessageId(self.short("idem", &[&tenant.0, idempotency_key.as_bytes()]))
    }

    /// An event, from what it is about. `qualifier` tells several events about one platform id apart (a status, a participant).
    pub fn event(&self, tenant: TenantId, account: AccountId, kind: &str, subject: &[u8], qualifier: &str) -> EventId {
        EventId(self.short("evt", &[&tenant.0, &account.0, kind.as_bytes(), subject, qualifier.as_bytes()]))
    }

    /// The delivery of an event to an endpoint.
    pub fn delivery(&self, event: EventId, endpoint: EndpointId) -> DeliveryId {
        DeliveryId(self.short("dlv", &[&event.0, &endpoint.0]))
    }

    /// A medium of a message that the platform brought: the one at this place that the platform calls so.
    pub fn medium(&self, tenant: TenantId, message: MessageId, place: usize, reference: &str) -> MediaId {
        MediaId(self.short("med", &[&tenant.0, &message.0, &(place as u64).to_le_bytes(), reference.as_bytes()]))
    }

    /// A file that a merchant brought: the same bytes in the same tenant are the same medium.
    pub fn uploaded_medium(&self, tenant: TenantId, sha256: &[u8; 32]) -> MediaId {
        MediaId(self.short("upl", &[&tenant.0, sha256]))
    }

    /// The names under which a medium is stored: of the tenant's folder, and in it. Nobody reads whose it is from them.
    pub fn blob(&self, tenant: TenantId, medium: MediaId) -> ([u8; ID_BYTES], [u8; ID_BYTES]) {
        (self.blob_folder(tenant), self.short("blb", &[&tenant.0, &medium.0]))
    }

    /// The name of a tenant's folder of media.
    pub fn blob_folder(&self, tenant: TenantId) -> [u8; ID_BYTES] {
        self.short("blf", &[&tenant.0])
    }

    /// What proves a link to a medium that is good until then (seconds since the epoch).
    pub fn media_link(&self, tenant: TenantId, medium: MediaId, until_secs: u64) -> [u8; ID_BYTES] {
        self.short("lnk", &[&tenant.0, &medium.0, &until_secs.to_le_bytes()])
    }

    /// The key of the platform-id index.
    pub fn platform_ref(&self, tenant: TenantId, account: AccountId, platform_id: &str) -> PlatformRef {
        PlatformRef(self.short("pid", &[&tenant.0, &account.0, platform_id.as_bytes()]))
    }

    /// The owner of a budget that is a part of an account.
    pub fn budget_within(&self, tenant: TenantId, account: AccountId, part: &str) -> [u8; ID_BYTES] {
        self.short("bud", &[&tenant.0, &account.0, part.as_bytes()])
    }

    /// The owner of a budget that the platform counts over tenants and accounts.
    pub fn budget_of_platform(&self, channel: &str, name: &str) -> [u8; ID_BYTES] {
        self.short("bup", &[channel.as_bytes(), name.as_bytes()])
    }

    /// What is stored of an API key.
    pub fn api_key(&self, secret: &str) -> KeyHash {
        KeyHash(self.full("key", &[secret.as_bytes()]))
    }

    /// Fingerprint of a request body, to tell a repeated request from another under the same idempotency key.
    pub fn fingerprint(&self, tenant: TenantId, body: &[u8]) -> [u8; ID_BYTES] {
        self.short("fpr", &[&tenant.0, body])
    }

    /// An id for a piece that the platform gave none: a hash of its bytes.
    pub fn content(&self, tenant: TenantId, account: AccountId, body: &[u8]) -> [u8; ID_BYTES] {
        self.short("raw", &[&tenant.0, &account.0, body])
    }

    /// A person in logs: 10 hex digits, stable inside one installation and useless outside.
    pub fn log_handle(&self, handle: &str) -> String {
        data_encoding::HEXLOWER.encode(&self.full("log", &[handle.as_bytes()])[..5])
    }
}

/// The partition of a conversation: chosen by us, so that every log backend agrees.
pub fn partition_of(conversation: ConversationId, partitions: u16) -> u16 {
    let head = u64::from_be_bytes(conversation.0[..8].try_into().expect("an id has 16 bytes"));
    (head % u64::from(partitions.max(1))) as u16
}

/// Ten random bytes for `draw`, from the operating system.
pub fn random10() -> [u8; 10] {
    let mut bytes = [0u8; 10];
    crate::seal::fill_random(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_refuse_other_kinds() {
        let id = AccountId::draw(Timestamp::from_secs(1_795_168_800), [7; 10]);
        let text = id.to_string();
        assert_eq!(text.parse::<AccountId>(), Ok(id));
        for bad in ["", "acc_", "acc_aaaa", &text[1..], &text.replace("acc_", "ep_"), &format!("{text}a")] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad}");
        }
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<AccountId>(&json).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes.len(), 16);
        assert_eq!(postcard::from_bytes::<AccountId>(&bytes).unwrap(), id);
    }

    #[test]
    fn computed_ids_depend_on_every_part() {
        let ids = IdHasher::new(b"secret");
        let (t1, t2) = (TenantId([1; 16]), TenantId([2; 16]));
        let account = AccountId([3; 16]);
        let base = ids.event(t1, account, "status", b"wamid.1", "read");
        assert_eq!(base, ids.event(t1, account, "status", b"wamid.1", "read"));
        assert_ne!(base, ids.event(t2, account, "status", b"wamid.1", "read"));
        assert_ne!(base, ids.event(t1, account, "status", b"wamid.1", "sent"));
        assert_ne!(base, ids.event(t1, account, "status", b"wamid.1r", "ead"));
        assert_ne!(base, IdHasher::new(b"other").event(t1, account, "status", b"wamid.1", "read"));
    }
}
