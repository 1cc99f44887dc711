//! What a channel needs to judge a request and cannot hold: certificates that the request names, from hosts that the channel
//! has checked. Kept for a day, few at a time; a failure is kept for a moment, so that a stranger's request cannot make us call
//! again and again.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use messaging::clock::Timestamp;
use messaging::exchange::HttpRequest;

use crate::options::Parts;

/// Things kept at once. SNS has one certificate a region, changed about once a year.
const KEPT_MAX: usize = 64;
/// Largest thing, in bytes.
const BYTES_MAX: usize = 64 * 1024;
/// How long a thing is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a failure is kept.
const FAILED_FOR: Duration = Duration::from_secs(10);
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

struct Kept {
    /// None: the call failed.
    bytes: Option<Bytes>,
    until: Timestamp,
}

/// Things fetched, by address.
#[derive(Default)]
pub(crate) struct Fetched(Mutex<HashMap<String, Kept, RandomState>>);

impl Fetched {
    /// What stands there; none when it cannot be had now.
    pub(crate) async fn get(&self, parts: &Parts, request: HttpRequest) -> Option<Bytes> {
        let (url, now) = (request.url.clone(), parts.clock.now());
        if let Some(kept) = self.0.lock().expect("no holder of the fetched things panics").get(&url)
            && now < kept.until
        {
            return kept.bytes.clone();
        }
        let answer = parts.caller.call(request, CALL_TIMEOUT).await.ok();
        let bytes = answer.filter(|answer| answer.status == 200 && answer.body.len() <= BYTES_MAX).map(|answer| answer.body);
        let until = now.plus(if bytes.is_some() { KEPT_FOR } else { FAILED_FOR });
        let mut kept = self.0.lock().expect("no holder of the fetched things panics");
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, one| now < one.until);
        }
        if kept.len() < KEPT_MAX || kept.contains_key(&url) {
            kept.insert(url, Kept { bytes: bytes.clone(), until });
        }
        bytes
    }
}
