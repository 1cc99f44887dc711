//! Trunkline's spine: the types and pure rules that both stations share, and the backends behind traits.
//!
//! Nothing here serves HTTP or runs a work loop. `channels`, `log`, `store` and `limit` do not know each other;
//! the stations (`gateway`, `router`) put them together.

pub mod accounts;
pub mod channels;
pub mod clock;
pub mod config;
pub mod content;
pub mod directory;
pub mod event;
pub mod exchange;
pub mod ids;
pub mod keeper;
pub mod limit;
pub mod log;
pub mod media;
pub mod metrics;
pub mod outcome;
pub mod outlook;
pub mod quota;
pub mod record;
pub mod seal;
pub mod state;
pub mod store;
pub mod supervise;
pub mod tenant;

/// A boxed future, the return type of the object-safe backend traits.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
