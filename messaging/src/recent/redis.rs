//! Recent answers in Redis, for all gateways. While Redis is away there are none, and nobody waits for it.

use ::redis::{Cmd, Value, cmd};
use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::*;
use crate::limit::redis::link::{Link, Opener};
use crate::limit::redis::place::Place;
use crate::limit::redis::{LimitError, RedisTls};
use crate::metrics::SupervisedTask;
use crate::supervise::vital;

/// Between tries to connect: doubled from the first to the second.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Answers that are waited for at once. Beyond, there is none.
const IN_FLIGHT_MAX: usize = 1024;

/// How answers are shared. As for limits.
#[derive(Debug, Clone)]
pub struct RecentSettings {
    /// Where Redis is.
    pub place: Place,
    /// Certificates for `rediss`.
    pub tls: RedisTls,
    /// For an answer; the longest that `get` and `put` take.
    pub timeout: Duration,
    /// What every key begins with.
    pub prefix: String,
}

/// Opens the memory that gateways share. Succeeds while Redis is away. Wants a tokio runtime, in which it keeps its connection.
pub async fn open_redis(settings: RecentSettings) -> Result<Arc<dyn Recent>, LimitError> {
    let RecentSettings { place, tls, timeout, prefix } = settings;
    crate::limit::redis::check_common(timeout, &prefix)?;
    let opener = Opener::new(place, tls, timeout);
    opener.check().map_err(|_| LimitError::Certificates)?;
    let shared = Arc::new(Shared { link: ArcSwapOption::empty(), is_broken: Notify::new() });
    if let Ok(link) = opener.open().await {
        shared.link.store(Some(Arc::new(link)));
    }
    let places = tokio::sync::Semaphore::new(IN_FLIGHT_MAX);
    let keeper = tokio::spawn(vital(SupervisedTask::Recent, keep_connected(shared.clone(), opener)));
    Ok(Arc::new(RedisRecent { shared, timeout, prefix, places, keeper }))
}

struct Shared {
    link: ArcSwapOption<Link>,
    is_broken: Notify,
}

struct RedisRecent {
    shared: Arc<Shared>,
    timeout: Duration,
    prefix: String,
    places: tokio::sync::Semaphore,
    keeper: tokio::task::JoinHandle<()>,
}

impl Drop for RedisRecent {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Opens the connection again whenever somebody found it broken.
async fn keep_connected(shared: Arc<Shared>, opener: Opener) {
    let mut pause = PAUSE_MIN;
    loop {
        if shared.link.load().is_some() {
            shared.is_broken.notified().await;
            shared.link.store(None);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        if let Ok(link) = opener.open().await {
            shared.link.store(Some(Arc::new(link)));
            pause = PAUSE_MIN;
        }
    }
}

impl RedisRecent {
    fn name(&self, key: [u8; 16]) -> String {
        format!("{}:recent:{}", self.prefix, data_encoding::HEXLOWER.encode(&key))
    }

    /// The answer to a command, if there is one in time.
    async fn call(&self, cmd: Cmd) -> Option<Value> {
        let link = self.shared.link.load_full()?;
        let _place = self.places.try_acquire().ok()?;
        let answer = timeout(self.timeout, async { Link::clone(&link).call(&cmd).await }).await;
        if let Ok(Ok(value)) = answer {
            return Some(value);
        }
        // Once per connection: an old one's failures say nothing about the next.
        if self.shared.link.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, &link)) {
            self.shared.is_broken.notify_one();
        }
        None
    }
}

impl Recent for RedisRecent {
    fn get(&self, key: [u8; 16]) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let mut cmd = cmd("GET");
            cmd.arg(self.name(key));
            match self.call(cmd).await {
                Some(Value::BulkString(value)) => Some(value.into()),
                _ => None,
            }
        })
    }

    fn put(&self, key: [u8; 16], value: Bytes, ttl: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
            if value.len() > VALUE_MAX || ttl_ms == 0 {
                return;
            }
            let mut cmd = cmd("SET");
            cmd.arg(self.name(key)).arg(&value[..]).arg("NX").arg("PX").arg(ttl_ms);
            self.call(cmd).await;
        })
    }

    fn sweep(&self) {}
}
