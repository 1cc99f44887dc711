//! Conversations, tokens of interactions, nonces and buckets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use messaging::clock::Timestamp;
use serde_json::Value;

use super::TOKEN_FOR;
use crate::locked;

/// Conversations and tokens that are known at once.
const KNOWN_MAX: usize = 1_000_000;
/// Nonces that are remembered; the oldest go first.
const NONCES_MAX: usize = 100_000;
/// How long a nonce is told apart: the platform says "a few minutes".
const NONCE_FOR: Duration = Duration::from_secs(5 * 60);
/// Calls to one channel, and within what.
const BUCKET: (u32, Duration) = (5, Duration::from_secs(5));

/// What is remembered.
pub(super) struct People(Mutex<Inner>);

struct Inner {
    /// By person.
    direct: HashMap<String, String>,
    /// By channel: whose it is.
    owners: HashMap<String, String>,
    closed: HashSet<String>,
    /// By token: the channel and when it was made.
    tokens: HashMap<String, (String, Timestamp)>,
    nonces: HashMap<(String, String), (Value, Timestamp)>,
    nonce_order: VecDeque<(String, String)>,
    bucket: (u32, Duration),
    /// By route: calls in the span that began then.
    used: HashMap<String, (u32, Timestamp)>,
}

/// What stands in a bucket after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub limit: u32,
    pub remaining: u32,
    pub reset_after: Duration,
    /// Whether the call was one too many.
    pub is_over: bool,
}

impl Default for People {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            direct: HashMap::new(),
            owners: HashMap::new(),
            closed: HashSet::new(),
            tokens: HashMap::new(),
            nonces: HashMap::new(),
            nonce_order: VecDeque::new(),
            bucket: BUCKET,
            used: HashMap::new(),
        }))
    }
}

impl People {
    pub fn direct_channel(&self, user: &str, id: impl FnOnce() -> String) -> String {
        let mut inner = locked(&self.0);
        if let Some(known) = inner.direct.get(user) {
            return known.clone();
        }
        let channel = id();
        if inner.direct.len() < KNOWN_MAX {
            inner.direct.insert(user.to_owned(), channel.clone());
            inner.owners.insert(channel.clone(), user.to_owned());
        }
        channel
    }

    /// Whether the bot and the person have met.
    pub fn knows(&self, user: &str) -> bool {
        locked(&self.0).direct.contains_key(user)
    }

    /// Whose direct conversation a channel is.
    pub fn owner(&self, channel: &str) -> Option<String> {
        locked(&self.0).owners.get(channel).cloned()
    }

    pub fn set_closed(&self, user: &str, closed: bool) {
        let mut inner = locked(&self.0);
        if closed {
            inner.closed.insert(user.to_owned());
        } else {
            inner.closed.remove(user);
        }
    }

    pub fn is_closed(&self, user: &str) -> bool {
        locked(&self.0).closed.contains(user)
    }

    pub fn add_token(&self, token: &str, channel: &str, at: Timestamp) {
        let mut inner = locked(&self.0);
        if inner.tokens.len() < KNOWN_MAX {
            inner.tokens.insert(token.to_owned(), (channel.to_owned(), at));
        }
    }

    pub fn forget_token(&self, token: &str) {
        locked(&self.0).tokens.remove(token);
    }

    /// The channel of a token, and whether it can still be used; none: there never was such a token.
    pub fn token(&self, token: &str, now: Timestamp) -> Option<(String, bool)> {
        let inner = locked(&self.0);
        let (channel, made) = inner.tokens.get(token)?;
        Some((channel.clone(), now.since(*made) < TOKEN_FOR))
    }

    /// The message that was sent with this nonce a few minutes ago.
    pub fn sent_with(&self, channel: &str, nonce: &str, now: Timestamp) -> Option<Value> {
        let inner = locked(&self.0);
        let (message, at) = inner.nonces.get(&(channel.to_owned(), nonce.to_owned()))?;
        (now.since(*at) < NONCE_FOR).then(|| message.clone())
    }

    pub fn remember(&self, channel: &str, nonce: &str, message: &Value, now: Timestamp) {
        let mut inner = locked(&self.0);
        let key = (channel.to_owned(), nonce.to_owned());
        if inner.nonce_order.len() >= NONCES_MAX
            && let Some(oldest) = inner.nonce_order.pop_front()
        {
            inner.nonces.remove(&oldest);
        }
        inner.nonce_order.push_back(key.clone());
        inner.nonces.insert(key, (message.clone(), now));
    }

    pub fn set_bucket(&self, calls: u32, within: Duration) {
        locked(&self.0).bucket = (calls.max(1), within);
    }

    /// Counts a call of a route.
    pub fn count(&self, route: &str, now: Timestamp) -> Bucket {
        let mut inner = locked(&self.0);
        let (limit, span) = inner.bucket;
        if inner.used.len() >= KNOWN_MAX {
            inner.used.clear();
        }
        let used = inner.used.entry(route.to_owned()).or_insert((0, now));
        if now.since(used.1) >= span {
            *used = (0, now);
        }
        let reset_after = span.saturating_sub(now.since(used.1));
        if used.0 >= limit {
            return Bucket { limit, remaining: 0, reset_after, is_over: true };
        }
        used.0 += 1;
        Bucket { limit, remaining: limit - used.0, reset_after, is_over: false }
    }
}
