//! Memory over frozen rows over tables, against a map.

use std::collections::BTreeMap;

use super::{AT, MIB, TENANT, clock, put, settings, table_files};
use crate::clock::Timestamp;
use crate::ids::{ConversationId, MessageId};
use crate::store::embedded::EmbeddedStore;
use crate::store::embedded::journal::Journal;
use crate::store::{Durability, Key, Scan, Store, Write};

const ROUNDS: u64 = 400;
const ROWS: u64 = 900;

fn message(n: u64) -> Key {
    Key::Message(TENANT, ConversationId([9; 16]), Timestamp(n), MessageId([3; 16]))
}

/// Rows are written, overwritten and deleted, drained now and then, and the store is reopened in between. Reads and scans see what the
/// map has.
#[tokio::test]
async fn layers_are_one_view() {
    let dir = tempfile::tempdir().expect("a folder");
    // With small memory, so that it drains often.
    let open = || EmbeddedStore::open_with(settings(dir.path()), clock(), Journal::sync, MIB as usize).expect("opens");
    let mut expected = BTreeMap::new();
    let mut store = open();
    let mut seed = 1_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for round in 0..ROUNDS {
        let mut batch = Vec::new();
        for _ in 0..1 + draw(60) {
            let n = 1 + draw(ROWS);
            if draw(3) == 0 {
                expected.remove(&n);
                batch.push(Write::delete(message(n), AT));
            } else {
                let value = vec![round as u8; 200 + draw(8000) as usize];
                expected.insert(n, value.clone());
                batch.push(put(message(n), value));
            }
        }
        store.apply(batch, Durability::Buffered).await.expect("is taken");
        if round % 97 == 96 {
            store.close().await;
            store = open();
        }
        if round % 7 != 0 {
            continue;
        }
        let keys = (1..=ROWS).map(message).collect();
        for (n, value) in (1..).zip(store.read(keys).await.expect("is read")) {
            assert!(value.as_ref() == expected.get(&n), "row {n} in round {round}");
        }
        let (before, limit) = (1 + draw(ROWS + 50), 1 + draw(100) as usize);
        let found = store.scan(Scan::Messages(TENANT, ConversationId([9; 16]), Timestamp(before)), limit).await.expect("is read");
        let wanted: Vec<_> = expected.range(..before).rev().take(limit).map(|(n, value)| (message(*n), value.clone())).collect();
        assert!(found == wanted, "a scan in round {round}");
    }
    assert!(table_files(dir.path()) > 0, "some of it was drained");
    store.close().await;
}
