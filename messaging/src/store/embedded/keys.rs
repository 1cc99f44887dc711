//! Keys as bytes and back. Pure.
//!
//! Everything is of fixed width and big-endian, so that within what a scan is given (tenant and conversation, tenant and
//! shard, shard) the order of the bytes is the order of the values. Shards' own rows begin with the shard, tenants' rows with
//! the tenant, in this way: the last two bytes of the tenant's id, then the last two of the id below it ([`LEAD`]), then the
//! rest of both. The engine keeps four bytes of each key where it compares, and goes elsewhere in memory only when they are
//! equal; the last bytes of ids are random, while the first are the same for all rows of a tenant. That took a quarter off
//! the cost of writes.

use std::ops::Bound;

use crate::clock::Timestamp;
use crate::ids::{AccountId, ConversationId, ID_BYTES, MessageId, PlatformRef, QuarantineId, TenantId};
use crate::state::FeedPosition;
use crate::store::{Key, Queue, Scan, Work};

/// The longest key: tenant, conversation, time, message.
const KEY_MAX: usize = 3 * ID_BYTES + 8;

/// The bytes of a tenant's id, and of an id below it, that lead a key.
const LEAD: usize = 2;
// In `Table::Pointers`, after both ids.
const BY_OUR_ID: u8 = 0;
const BY_PLATFORM_ID: u8 = 1;
const WORK: u8 = 2;
// In `Table::Shards`, after the shard.
const LATER: u8 = 0;
const INTENT: u8 = 1;
const END_OF_INTENTS: u8 = 2;
const PROGRESS: u8 = 3;
// In `Table::Shards`, after `LATER`: the order of `Queue`'s variants.
const DESTINATION: u8 = 0;
const TIMERS: u8 = 1;
const BULK: u8 = 2;

/// The tables. Those with the same pattern of use share one: fewer are cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Overwritten with every event of the conversation.
    Conversations,
    /// Large rows, by conversation and time.
    Messages,
    /// Short rows looked up by id, mostly in vain: an event that is new. Accounts' work stands with them: it is little.
    Pointers,
    /// The feed: appended in order.
    Events,
    /// `later` and intents: written and soon deleted.
    Shards,
    /// Rare.
    Quarantine,
    /// Of the node, not of tenants: directory, leases (`node.rs`). Its keys are no [`Key`]s.
    Node,
}

impl Table {
    /// Their order stands in the journal.
    pub(super) const ALL: [Self; 7] =
        [Self::Conversations, Self::Messages, Self::Pointers, Self::Events, Self::Shards, Self::Quarantine, Self::Node];

    /// The table that stands in the journal by this number.
    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }
}

/// A key's bytes, on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyBytes {
    bytes: [u8; KEY_MAX],
    len: usize,
}

impl KeyBytes {
    const EMPTY: Self = Self { bytes: [0; KEY_MAX], len: 0 };

    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut key = Self::EMPTY;
        for part in parts {
            key.bytes[key.len..key.len + part.len()].copy_from_slice(part);
            key.len += part.len();
        }
        key
    }
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Bytes that are no key of the table: damage, or written by another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadKey;

/// The table of a key.
pub(super) fn table_of(key: &Key) -> Table {
    match key {
        Key::Conversation(..) => Table::Conversations,
        Key::Message(..) => Table::Messages,
        Key::Pointer(..) | Key::PlatformId(..) | Key::Work(..) => Table::Pointers,
        Key::Event(..) => Table::Events,
        Key::Later(..) | Key::Intent(..) | Key::Progress(_) => Table::Shards,
        Key::Quarantine(..) => Table::Quarantine,
    }
}

/// The bytes of a key.
pub(super) fn encode(key: &Key) -> KeyBytes {
    match key {
        Key::Conversation(tenant, conversation) => KeyBytes::of(&[&below(tenant, &conversation.0)]),
        Key::Message(tenant, conversation, time, message) => {
            KeyBytes::of(&[&below(tenant, &conversation.0), &time.0.to_be_bytes(), &message.0])
        }
        Key::Pointer(tenant, id) => KeyBytes::of(&[&below(tenant, id), &[BY_OUR_ID]]),
        Key::PlatformId(tenant, account, id) => KeyBytes::of(&[&below(tenant, &id.0), &[BY_PLATFORM_ID], &account.0]),
        Key::Event(tenant, at) => event(tenant, at.shard, at.order),
        Key::Later(shard, queue, order) => later(*shard, *queue, *order),
        Key::Intent(shard, tenant, message) => KeyBytes::of(&[&shard.to_be_bytes(), &[INTENT], &tenant.0, &message.0]),
        Key::Progress(shard) => KeyBytes::of(&[&shard.to_be_bytes(), &[PROGRESS]]),
        Key::Quarantine(tenant, id) => KeyBytes::of(&[&tenant.0, &id.0]),
        Key::Work(tenant, account, work) => KeyBytes::of(&[&below(tenant, &account.0), &[WORK, work.code()]]),
    }
}

/// Whether a key of `Table::Pointers` is that of a work's note.
pub(super) fn is_work(key: &[u8]) -> bool {
    key.get(2 * ID_BYTES) == Some(&WORK)
}

/// A tenant's id and one below it, with the lead first.
fn below(tenant: &TenantId, id: &[u8; ID_BYTES]) -> [u8; 2 * ID_BYTES] {
    let (tenant_rest, tenant_lead) = tenant.0.split_at(ID_BYTES - LEAD);
    let (id_rest, id_lead) = id.split_at(ID_BYTES - LEAD);
    let mut bytes = [0; 2 * ID_BYTES];
    bytes[..LEAD].copy_from_slice(tenant_lead);
    bytes[LEAD..2 * LEAD].copy_from_slice(id_lead);
    bytes[2 * LEAD..LEAD + ID_BYTES].copy_from_slice(tenant_rest);
    bytes[LEAD + ID_BYTES..].copy_from_slice(id_rest);
    bytes
}

/// The reverse of [`below`].
fn apart(bytes: &[u8; 2 * ID_BYTES]) -> (TenantId, [u8; ID_BYTES]) {
    let (mut tenant, mut id) = ([0; ID_BYTES], [0; ID_BYTES]);
    tenant[ID_BYTES - LEAD..].copy_from_slice(&bytes[..LEAD]);
    id[ID_BYTES - LEAD..].copy_from_slice(&bytes[LEAD..2 * LEAD]);
    tenant[..ID_BYTES - LEAD].copy_from_slice(&bytes[2 * LEAD..LEAD + ID_BYTES]);
    id[..ID_BYTES - LEAD].copy_from_slice(&bytes[LEAD + ID_BYTES..]);
    (TenantId(tenant), id)
}

fn event(tenant: &TenantId, shard: u16, order: u64) -> KeyBytes {
    let (rest, lead) = tenant.0.split_at(ID_BYTES - LEAD);
    KeyBytes::of(&[lead, &shard.to_be_bytes(), rest, &order.to_be_bytes()])
}

fn later(shard: u16, queue: Queue, order: u64) -> KeyBytes {
    let (shard, order) = (shard.to_be_bytes(), order.to_be_bytes());
    match queue {
        Queue::Destination(id) => KeyBytes::of(&[&shard, &[LATER, DESTINATION], &id, &order]),
        Queue::Bulk(id) => KeyBytes::of(&[&shard, &[LATER, BULK], &id, &order]),
        Queue::Timers => KeyBytes::of(&[&shard, &[LATER, TIMERS], &order]),
    }
}

/// The key that has these bytes.
pub(super) fn decode(table: Table, bytes: &[u8]) -> Result<Key, BadKey> {
    let mut rest = Rest(bytes);
    let key = match table {
        Table::Conversations => {
            let (tenant, conversation) = apart(&rest.take()?);
            Key::Conversation(tenant, ConversationId(conversation))
        }
        Table::Messages => {
            let (tenant, conversation) = apart(&rest.take()?);
            let time = Timestamp(u64::from_be_bytes(rest.take()?));
            Key::Message(tenant, ConversationId(conversation), time, MessageId(rest.take()?))
        }
        Table::Pointers => {
            let (tenant, id) = apart(&rest.take()?);
            match rest.tag()? {
                BY_OUR_ID => Key::Pointer(tenant, id),
                BY_PLATFORM_ID => Key::PlatformId(tenant, AccountId(rest.take()?), PlatformRef(id)),
                WORK => Key::Work(tenant, AccountId(id), Work::of_code(rest.tag()?).ok_or(BadKey)?),
                _ => return Err(BadKey),
            }
        }
        Table::Events => {
            let mut tenant = [0; ID_BYTES];
            tenant[ID_BYTES - LEAD..].copy_from_slice(&rest.take::<LEAD>()?);
            let shard = u16::from_be_bytes(rest.take()?);
            tenant[..ID_BYTES - LEAD].copy_from_slice(&rest.take::<{ ID_BYTES - LEAD }>()?);
            Key::Event(TenantId(tenant), FeedPosition { shard, order: u64::from_be_bytes(rest.take()?) })
        }
        Table::Shards => decode_shard_row(&mut rest)?,
        Table::Quarantine => Key::Quarantine(TenantId(rest.take()?), QuarantineId(rest.take()?)),
        Table::Node => return Err(BadKey),
    };
    if rest.0.is_empty() { Ok(key) } else { Err(BadKey) }
}

fn decode_shard_row(rest: &mut Rest<'_>) -> Result<Key, BadKey> {
    let shard = u16::from_be_bytes(rest.take()?);
    match rest.tag()? {
        LATER => {
            let queue = match rest.tag()? {
                DESTINATION => Queue::Destination(rest.take()?),
                TIMERS => Queue::Timers,
                BULK => Queue::Bulk(rest.take()?),
                _ => return Err(BadKey),
            };
            Ok(Key::Later(shard, queue, u64::from_be_bytes(rest.take()?)))
        }
        INTENT => Ok(Key::Intent(shard, TenantId(rest.take()?), MessageId(rest.take()?))),
        PROGRESS => Ok(Key::Progress(shard)),
        _ => Err(BadKey),
    }
}

/// What of a key is not yet decoded.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadKey> {
        let (head, rest) = self.0.split_first_chunk().ok_or(BadKey)?;
        self.0 = rest;
        Ok(*head)
    }

    fn tag(&mut self) -> Result<u8, BadKey> {
        let [tag] = self.take()?;
        Ok(tag)
    }
}

/// A scan as a range of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanRange {
    pub(super) table: Table,
    pub(super) from: Bound<KeyBytes>,
    pub(super) to: Bound<KeyBytes>,
    pub(super) newest_first: bool,
}

/// What a scan has to look at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span {
    /// A range of one table.
    Range(ScanRange),
    /// The quarantine of all tenants, in the order of ids, after one.
    AllQuarantine(Option<QuarantineId>),
}

/// What a scan has to look at.
pub(super) fn span_of(scan: &Scan) -> Span {
    use Bound::{Excluded, Included};
    let newest_first = matches!(scan, Scan::Messages(..));
    let (table, from, to) = match scan {
        Scan::Messages(tenant, conversation, before) => {
            let conversation = below(tenant, &conversation.0);
            let to = KeyBytes::of(&[&conversation, &before.0.to_be_bytes()]);
            (Table::Messages, Included(KeyBytes::of(&[&conversation])), Excluded(to))
        }
        Scan::Events(tenant, after) => {
            let from = event(tenant, after.shard, after.order);
            (Table::Events, Excluded(from), Included(event(tenant, after.shard, u64::MAX)))
        }
        Scan::Later(shard, queue, order) => {
            (Table::Shards, Included(later(*shard, *queue, *order)), Included(later(*shard, *queue, u64::MAX)))
        }
        Scan::AllLater(shard) => (Table::Shards, Included(shard_part(*shard, LATER)), Excluded(shard_part(*shard, INTENT))),
        Scan::Intents(shard) => (Table::Shards, Included(shard_part(*shard, INTENT)), Excluded(shard_part(*shard, END_OF_INTENTS))),
        Scan::Quarantine(Some(tenant), after) => {
            let from = match after {
                Some(id) => Excluded(KeyBytes::of(&[&tenant.0, &id.0])),
                None => Included(KeyBytes::of(&[&tenant.0])),
            };
            (Table::Quarantine, from, Included(KeyBytes::of(&[&tenant.0, &[u8::MAX; ID_BYTES]])))
        }
        Scan::Quarantine(None, after) => return Span::AllQuarantine(*after),
    };
    Span::Range(ScanRange { table, from, to, newest_first })
}

fn shard_part(shard: u16, tag: u8) -> KeyBytes {
    KeyBytes::of(&[&shard.to_be_bytes(), &[tag]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small numbers beside any: neighbours and equal beginnings must come up often.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..4u64, any::<u64>(), Just(u64::MAX), Just(256), Just(255)]
    }
    fn id() -> impl Strategy<Value = [u8; 16]> {
        prop_oneof![(0..3u8).prop_map(|b| [b; 16]), any::<[u8; 16]>(), Just([u8::MAX; 16])]
    }
    fn shard() -> impl Strategy<Value = u16> {
        prop_oneof![0..3u16, any::<u16>(), Just(u16::MAX)]
    }
    fn queue() -> impl Strategy<Value = Queue> {
        prop_oneof![id().prop_map(Queue::Destination), id().prop_map(Queue::Bulk), Just(Queue::Timers)]
    }
    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            (id(), id()).prop_map(|(t, c)| Key::Conversation(TenantId(t), ConversationId(c))),
            (id(), id(), number(), id()).prop_map(|(t, c, at, m)| Key::Message(
                TenantId(t),
                ConversationId(c),
                Timestamp(at),
                MessageId(m)
            )),
            (id(), id()).prop_map(|(t, p)| Key::Pointer(TenantId(t), p)),
            (id(), id(), id()).prop_map(|(t, a, p)| Key::PlatformId(TenantId(t), AccountId(a), PlatformRef(p))),
            (id(), shard(), number()).prop_map(|(t, shard, order)| Key::Event(TenantId(t), FeedPosition { shard, order })),
            (shard(), queue(), number()).prop_map(|(s, q, order)| Key::Later(s, q, order)),
            (shard(), id(), id()).prop_map(|(s, t, m)| Key::Intent(s, TenantId(t), MessageId(m))),
            (id(), id()).prop_map(|(t, q)| Key::Quarantine(TenantId(t), QuarantineId(q))),
            (id(), id(), 0..Work::ALL.len()).prop_map(|(t, a, n)| Key::Work(TenantId(t), AccountId(a), Work::ALL[n])),
        ]
    }

    /// Whether both can be found by one scan.
    fn in_one_scan(a: &Key, b: &Key) -> bool {
        match (a, b) {
            (Key::Message(ta, ca, ..), Key::Message(tb, cb, ..)) => (ta, ca) == (tb, cb),
            (Key::Event(ta, a), Key::Event(tb, b)) => (ta, a.shard) == (tb, b.shard),
            (Key::Later(a, ..), Key::Later(b, ..)) | (Key::Intent(a, ..), Key::Intent(b, ..)) => a == b,
            (Key::Quarantine(..), Key::Quarantine(..)) => true,
            _ => false,
        }
    }

    fn inside(range: &ScanRange, key: &Key) -> bool {
        if table_of(key) != range.table {
            return false;
        }
        let bytes = encode(key);
        let bytes = bytes.as_ref();
        let from = match &range.from {
            Bound::Included(from) => bytes >= from.as_ref(),
            Bound::Excluded(from) => bytes > from.as_ref(),
            Bound::Unbounded => true,
        };
        let to = match &range.to {
            Bound::Included(to) => bytes <= to.as_ref(),
            Bound::Excluded(to) => bytes < to.as_ref(),
            Bound::Unbounded => true,
        };
        from && to
    }

    proptest! {
        #[test]
        fn keys_come_back(key in key()) {
            prop_assert_eq!(decode(table_of(&key), encode(&key).as_ref()), Ok(key));
        }

        #[test]
        fn rows_of_one_scan_stand_in_the_order_of_keys(a in key(), b in key()) {
            if in_one_scan(&a, &b) {
                let bytes = (encode(&a), encode(&b));
                prop_assert_eq!(bytes.0.as_ref().cmp(bytes.1.as_ref()), a.cmp(&b));
            }
        }

        #[test]
        fn no_bytes_panic_and_none_has_two_readings(table in 0..Table::ALL.len(), bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            if let Ok(key) = decode(Table::ALL[table], &bytes) {
                let again = encode(&key);
                prop_assert_eq!(again.as_ref(), &bytes[..]);
            }
        }

        #[test]
        fn a_scan_covers_what_it_says(key in key(), t in id(), c in id(), s in shard(), n in number(), q in queue()) {
            let (tenant, conversation) = (TenantId(t), ConversationId(c));
            let cases: [(Scan, bool); 7] = [
                (Scan::Messages(tenant, conversation, Timestamp(n)),
                    matches!(key, Key::Message(kt, kc, at, _) if kt == tenant && kc == conversation && at.0 < n)),
                (Scan::Events(tenant, FeedPosition { shard: s, order: n }),
                    matches!(key, Key::Event(kt, at) if kt == tenant && at.shard == s && at.order > n)),
                (Scan::Later(s, q, n), matches!(key, Key::Later(ks, kq, order) if ks == s && kq == q && order >= n)),
                (Scan::AllLater(s), matches!(key, Key::Later(ks, ..) if ks == s)),
                (Scan::Intents(s), matches!(key, Key::Intent(ks, ..) if ks == s)),
                (Scan::Quarantine(Some(tenant), None), matches!(key, Key::Quarantine(kt, _) if kt == tenant)),
                (Scan::Quarantine(Some(tenant), Some(QuarantineId(c))), matches!(key, Key::Quarantine(kt, id) if kt == tenant && id.0 > c)),
            ];
            for (scan, expected) in cases {
                let Span::Range(range) = span_of(&scan) else { panic!("{scan:?} is a range") };
                prop_assert_eq!(inside(&range, &key), expected, "{:?} of {:?}", scan, key);
            }
        }
    }
}
