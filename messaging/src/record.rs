//! What stands on the log. One layout for every backend, versioned, with golden bytes in the tests.
//!
//! ```text
//! version u8 (1) | kind u8 | channel u8 | flags u8 | tenant 16 | account 16 | conversation 16 | accepted_at_us u64 LE | sealed body
//! ```
//! The head is bound to the body as associated data, so a body moved under another head does not open. Only a
//! `channels::Piece` (made by a channel after verification), a `Command` (made by an authenticated caller) or a `Notice` (made by
//! ourselves) becomes a record; unverified bytes cannot.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::channels::{ChannelKind, ContactInfo, Inbound, InboundBody, MediaFault, Piece};
use crate::clock::Timestamp;
use crate::content::{Content, Handle, Template};
use crate::directory::AccountNews;
use crate::event::EventType;
use crate::ids::{AccountId, ConversationId, IdHasher, MediaId, MessageId, TenantId, partition_of};
use crate::log::{NewRecord, Topic};
use crate::outcome::named_enum;
use crate::seal::DataKey;
use crate::tenant::{Owned, Tenant};

const VERSION: u8 = 1;
/// Length of a record's head.
pub const HEAD_BYTES: usize = 4 + 16 * 3 + 8;
const FLAG_MOVED: u8 = 1;
const FLAG_REQUEUED: u8 = 2;

named_enum! {
/// What a record's body is.
RecordKind {
    /// A verified piece of a platform's webhook.
    Inbound = "inbound",
    /// An authentic webhook body that could not be split.
    Unparsable = "unparsable",
    /// A command of a merchant.
    Command = "command",
    /// What this system found out about an account by itself.
    Notice = "notice",
}
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the body is.
    pub kind: RecordKind,
    /// Of which channel.
    pub channel: ChannelKind,
    /// Handed on once already by a shard that does not own the conversation: is not handed on again.
    pub moved: bool,
    /// It was parked, and an operator let it in again: what is worked leaves the quarantine.
    pub requeued: bool,
    /// Whose.
    pub tenant: Tenant,
    /// Of which account.
    pub account: AccountId,
    /// The conversation that it belongs to, as far as the gateway could tell.
    pub conversation: ConversationId,
    /// When the gateway took it.
    pub accepted_at: Timestamp,
    /// The piece or command.
    pub body: Bytes,
}

/// Bytes on the log that are not a record of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A version of tomorrow, or damage.
    #[error("record version {0} is not known here")]
    Version(u8),
    /// Too short, or an unknown tag.
    #[error("record head is malformed")]
    Head,
    /// The body does not open under this head.
    #[error("record body does not open")]
    Seal,
}

impl Record {
    /// A verified piece.
    pub fn inbound(owner: Owned, channel: ChannelKind, conversation: ConversationId, piece: &Piece, accepted_at: Timestamp) -> Self {
        let kind = if piece.is_unparsable() { RecordKind::Unparsable } else { RecordKind::Inbound };
        Self::new(kind, owner, channel, conversation, piece.body().clone(), accepted_at)
    }

    /// A merchant's command.
    pub fn command(owner: Owned, channel: ChannelKind, conversation: ConversationId, command: &Command, accepted_at: Timestamp) -> Self {
        let body = Bytes::from(serde_json::to_vec(command).expect("commands serialise"));
        Self::new(RecordKind::Command, owner, channel, conversation, body, accepted_at)
    }

    /// What we found out ourselves. Stands in the account's own conversation.
    pub fn notice(owner: Owned, channel: ChannelKind, ids: &IdHasher, notice: &Notice, accepted_at: Timestamp) -> Self {
        let conversation = ids.conversation(owner.tenant.id(), owner.account, Handle::account().expose());
        let body = Bytes::from(serde_json::to_vec(notice).expect("notices serialise"));
        Self::new(RecordKind::Notice, owner, channel, conversation, body, accepted_at)
    }

    fn new(kind: RecordKind, of: Owned, channel: ChannelKind, conversation: ConversationId, body: Bytes, accepted_at: Timestamp) -> Self {
        Self { kind, channel, moved: false, requeued: false, tenant: of.tenant, account: of.account, conversation, accepted_at, body }
    }

    /// The same record for another conversation (an alias was found).
    pub fn moved_to(&self, conversation: ConversationId) -> Self {
        Self { conversation, moved: true, ..self.clone() }
    }

    /// The same record once more, after it was parked. It is of now: its rows must be newer than what was written meanwhile.
    pub fn requeued_at(&self, now: Timestamp) -> Self {
        Self { requeued: true, accepted_at: now, ..self.clone() }
    }

    /// Where it goes.
    pub fn topic(&self) -> Topic {
        match self.kind {
            RecordKind::Inbound | RecordKind::Unparsable | RecordKind::Notice => Topic::Inbound,
            RecordKind::Command => Topic::Outbound,
        }
    }

    /// Bytes for the log.
    pub fn encode(&self, key: &DataKey) -> Bytes {
        let mut head = [0u8; HEAD_BYTES];
        head[0] = VERSION;
        head[1] = self.kind as u8;
        head[2] = self.channel as u8;
        head[3] = if self.moved { FLAG_MOVED } else { 0 } | if self.requeued { FLAG_REQUEUED } else { 0 };
        head[4..20].copy_from_slice(&self.tenant.id().0);
        head[20..36].copy_from_slice(&self.account.0);
        head[36..52].copy_from_slice(&self.conversation.0);
        head[52..60].copy_from_slice(&self.accepted_at.0.to_le_bytes());
        let body = key.seal(&head, &self.body);
        let mut out = Vec::with_capacity(HEAD_BYTES + body.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(&body);
        Bytes::from(out)
    }

    /// From the log's bytes.
    pub fn decode(bytes: &[u8], key: &DataKey) -> Result<Self, BadRecord> {
        if bytes.len() < HEAD_BYTES {
            return Err(BadRecord::Head);
        }
        let (head, body) = bytes.split_at(HEAD_BYTES);
        if head[0] != VERSION {
            return Err(BadRecord::Version(head[0]));
        }
        let id = |from: usize| -> [u8; 16] { head[from..from + 16].try_into().expect("sixteen bytes of the head") };
        let kind = RecordKind::ALL.get(usize::from(head[1])).copied().ok_or(BadRecord::Head)?;
        let channel = ChannelKind::ALL.get(usize::from(head[2])).copied().ok_or(BadRecord::Head)?;
        Ok(Self {
            kind,
            channel,
            moved: head[3] & FLAG_MOVED != 0,
            requeued: head[3] & FLAG_REQUEUED != 0,
            tenant: Tenant::verified(TenantId(id(4))),
            account: AccountId(id(20)),
            conversation: ConversationId(id(36)),
            accepted_at: Timestamp(u64::from_le_bytes(head[52..60].try_into().expect("eight bytes of the head"))),
            body: Bytes::from(key.open(head, body).map_err(|_| BadRecord::Seal)?),
        })
    }

    /// For the log: where it goes, and its bytes.
    pub fn to_new(&self, topic: Topic, partitions: u16, key: &DataKey) -> NewRecord {
        NewRecord { topic, partition: partition_of(self.conversation, partitions), payload: self.encode(key) }
    }
}

/// What this system found out about an account by itself, for the account's subscribers. Holds no personal data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// What was found, such as `connection`: with `instance` the key of deduplication.
    pub subject: String,
    /// Tells findings of one subject apart: the same one is told once.
    pub instance: String,
    /// What subscribers get.
    pub news: News,
}

/// What subscribers get of a [`Notice`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// `account.state_changed`, with this as its `change`.
    AccountState(Map<String, Value>),
    /// `platform.event` of this kind.
    Platform {
        /// Its `kind`.
        kind: String,
        /// Its `raw`.
        raw: Value,
    },
}

impl Notice {
    /// As if the platform had said it.
    pub fn into_inbound(self) -> Inbound {
        let body = match self.news {
            News::AccountState(data) => InboundBody::Account { event: EventType::AccountStateChanged, data },
            News::Platform { kind, raw } => InboundBody::Platform { kind, raw },
        };
        Inbound {
            platform_id: format!("trunkline:{}", self.subject),
            qualifier: self.instance,
            at: Timestamp::ZERO,
            contact: ContactInfo { handles: vec![Handle::account()], ..ContactInfo::default() },
            opens_window: false,
            from_ad: false,
            body,
            context: Map::new(),
        }
    }
}

/// How urgent a send is. Interactive ones take the next free unit of every budget; bulk ones take what is left, with a floor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// An answer, a notice: somebody waits for it.
    #[default]
    Interactive,
    /// One of a campaign.
    Bulk,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    /// Its place in `ALL`.
    pub const fn index(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Bulk => 1,
        }
    }

    /// The topic that its sends stand on.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Interactive => Topic::Outbound,
            Self::Bulk => Topic::Bulk,
        }
    }
}

/// A message that a merchant wants sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendCommand {
    /// Its id, known since the 202.
    pub message: MessageId,
    /// To whom.
    pub to: Handle,
    /// What.
    pub content: Content,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Sent in its place when the window is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Template>,
    /// The tag that allows it outside the window, such as `human_agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Not sent after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Not sent before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The merchant's own reference, given back in events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_data: Option<String>,
    /// The merchant's own data, given back in events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Tells a repeated request from another under the same idempotency key.
    pub fingerprint: [u8; 16],
    /// A resend that the tenant asked for although the first may have arrived.
    #[serde(default)]
    pub possible_duplicate: bool,
    /// How urgent it is. It stands in the message's row, so that a send that was deferred or scheduled keeps it.
    #[serde(default)]
    pub class: Class,
}

impl SendCommand {
    /// An interactive send with nothing besides: no deadline, no due time, no data of the merchant's.
    pub fn plain(message: MessageId, to: Handle, content: Content) -> Self {
        Self {
            message,
            to,
            content,
            reply_to: None,
            fallback: None,
            tag: None,
            expires_at: None,
            not_before: None,
            callback_data: None,
            metadata: None,
            fingerprint: [0; 16],
            possible_duplicate: false,
            class: Class::Interactive,
        }
    }
}

/// What a merchant may ask of a conversation. Goes over the log to the shard that owns it, like everything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Send a message, reaction or receipt.
    Send(Box<SendCommand>),
    /// Take a message back while it waits.
    Cancel {
        /// Which.
        message: MessageId,
    },
    /// Send a message of unknown fate again, marked as a possible duplicate.
    Resend {
        /// Which.
        message: MessageId,
    },
    /// From now on this conversation goes by another id: the same person was known under another handle first. Made by
    /// shards, never by merchants.
    Link {
        /// The conversation that goes on.
        to: ConversationId,
    },
    /// Tell the subscribers something about the account. Made by the stations, never by merchants.
    Account {
        /// What.
        news: AccountNews,
    },
    /// What became of a medium of a message: told to subscribers. Made by whoever fetched it, never by merchants.
    Medium {
        /// Which.
        medium: MediaId,
        /// Of which message.
        message: MessageId,
        /// What became of it.
        news: MediaNews,
    },
    /// Change what is known of the contact.
    Contact {
        /// The handle, for a contact never seen before.
        to: Handle,
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Restriction flag: stored, not otherwise used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restricted: Option<bool>,
        /// Opt-out flag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opted_out: Option<bool>,
    },
}

/// What became of a medium.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaNews {
    /// It is stored.
    Ready {
        /// Its media type, as its bytes say.
        mime_type: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// Its SHA-256, in hexadecimal.
        sha256: String,
    },
    /// It was not had.
    Failed {
        /// The rule that it broke, or what happened.
        reason: MediaFault,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            kind: RecordKind::Command,
            channel: ChannelKind::Telegram,
            moved: false,
            requeued: false,
            tenant: Tenant::verified(TenantId([1; 16])),
            account: AccountId([2; 16]),
            conversation: ConversationId([3; 16]),
            accepted_at: Timestamp(0x0102_0304_0506_0708),
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn records_read_back_and_hold_to_their_head() {
        let key = DataKey::generate();
        let bytes = record().encode(&key);
        assert_eq!(Record::decode(&bytes, &key), Ok(record()));
        for at in 1..bytes.len() {
            let mut bent = bytes.to_vec();
            bent[at] ^= 0x80;
            assert!(Record::decode(&bent, &key).is_err(), "a flipped bit at {at} is found");
        }
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut], &key).is_err());
        }
        assert_eq!(record().moved_to(ConversationId([9; 16])).conversation, ConversationId([9; 16]));
    }

    #[test]
    fn golden_head() {
        let bytes = record().encode(&DataKey::generate());
        let head = "01020100\
                    01010101010101010101010101010101\
                    02020202020202020202020202020202\
                    03030303030303030303030303030303\
                    0807060504030201";
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes[..HEAD_BYTES]), head);
    }
}
