//! Station one: HTTP in, verified, on the log; the `/v1` API and the admin listener. Knows `messaging` only.
//!
//! ```text
//! platform -POST /hooks-> server -> edge -> hooks: bound, channel.receive, Record -> batcher -> LOG -> 200
//! merchant -POST /v1----> server -> edge -> api: authenticate, scope, budget, handler -> batcher -> LOG -> 202
//! operator -------------> server -> edge -> admin: health, metrics, drain
//! ```
//!
//! Each thread has its own runtime, its own socket on the shared port, and its own queue to the log, so a request meets no
//! other thread between its head and the hand-over to the log.

mod access;
pub mod admin;
mod api;
mod batcher;
mod body;
mod bounds;
mod callbacks;
pub mod connectors;
mod edge;
mod fetched;
mod hooks;
mod media;
mod options;
mod overload;
mod problem;
mod reply;
pub mod routes;
mod server;
mod shared;
mod signatures;
#[cfg(test)]
mod testing;
mod upkeep;

use std::sync::Arc;

pub use api::token;
pub use options::{AdminParts, Drain, HttpLimits, IsReady, LogFilter, Options, OutboundCall, Parts, TailLines, UrlCheck};
pub use problem::Code;
pub use server::ServeError;
pub use server::listen::Listeners;

/// The gateway of a process.
pub struct Gateway {
    shared: Arc<shared::Shared>,
}

impl Gateway {
    /// Puts a gateway together. Nothing runs yet.
    pub fn new(parts: Parts, mut options: Options) -> Self {
        while options.public_url.ends_with('/') {
            options.public_url.pop();
        }
        Self { shared: shared::Shared::new(parts, options) }
    }

    /// Serves until `shutdown` resolves (or `/admin/drain` is called), then drains as `Options::drain` says and returns.
    ///
    /// # Errors
    /// When a serving thread cannot start, or panics outside of a request.
    pub async fn serve(self, listeners: Listeners, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        server::serve(self.shared, listeners, shutdown).await
    }
}
