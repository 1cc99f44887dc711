//! The HTTP server: threads, sockets, connections, and how it all stops.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use messaging::metrics::SupervisedTask;
use messaging::metrics::{self, Listener};
use messaging::supervise::{spawn_again, vital_here};
use tokio::sync::{oneshot, watch};

pub(crate) mod addresses;
pub(crate) mod connection;
pub(crate) mod listen;
pub(crate) mod worker;

use crate::connectors::Connectors;
use crate::shared::Shared;
use crate::upkeep;
use listen::Listeners;
use worker::Stage;

/// Serving failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A thread could not be started, or its runtime.
    #[error("cannot start a serving thread: {0}")]
    Start(#[from] io::Error),
    /// A serving thread ended in a panic.
    #[error("a serving thread ended in a panic")]
    Panicked,
}

/// Serves until `shutdown` resolves, then drains: readiness says no while everything is still served, then the sockets close
/// and requests under way finish. The admin listener stays until the public one is empty.
pub(crate) async fn serve(shared: Arc<Shared>, listeners: Listeners, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    let Listeners { public, admin, .. } = listeners;
    let (public_stage, _) = watch::channel(Stage::Serving);
    let (admin_stage, _) = watch::channel(Stage::Serving);
    let mut threads = Vec::new();
    for (index, socket) in public.into_iter().enumerate() {
        threads.push(start(&shared, Listener::Public, index, socket, public_stage.subscribe())?);
    }
    let connectors = Connectors::start(&shared.parts, &shared.refused);
    let upkeep = {
        let shared = shared.clone();
        AbortOnDrop(spawn_again(SupervisedTask::Upkeep, move || upkeep::run(shared.clone())))
    };
    let admin = admin.map(|socket| start(&shared, Listener::Admin, 0, socket, admin_stage.subscribe())).transpose()?;

    let first_end = async {
        if threads.is_empty() {
            return std::future::pending().await;
        }
        let (ended, _, _) = futures_util::future::select_all(threads.iter_mut()).await;
        ended
    };
    tokio::select! {
        () = shutdown => {}
        () = shared.drain_asked.notified() => {}
        // Threads do not end by themselves: the node must not go on with half of them.
        ended = first_end => return Err(ended.map_or(ServeError::Panicked, |ended| ended.map_or_else(Into::into, |()| ServeError::Panicked))),
    }
    shared.draining.store(true, Ordering::SeqCst);
    metrics::DRAINING.at([]).set(1.0);
    tracing::info!(announce_s = shared.options.drain.announce.as_secs_f64(), "draining: readiness says no, requests are still served");
    tokio::time::sleep(shared.options.drain.announce).await;
    shared.closing.store(true, Ordering::SeqCst);
    public_stage.send_replace(Stage::Closing);
    connectors.stop().await;
    for thread in threads {
        thread.await.map_err(|_| ServeError::Panicked)??;
    }
    drop(upkeep);
    admin_stage.send_replace(Stage::Closing);
    if let Some(admin) = admin {
        admin.await.map_err(|_| ServeError::Panicked)??;
    }
    Ok(())
}

/// A task that ends with whoever started it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Ended = oneshot::Receiver<io::Result<()>>;

fn start(
    shared: &Arc<Shared>,
    listener: Listener,
    index: usize,
    socket: std::net::TcpListener,
    stage: watch::Receiver<Stage>,
) -> io::Result<Ended> {
    let (end, ended) = oneshot::channel();
    let shared = shared.clone();
    std::thread::Builder::new().name(format!("http-{}-{index}", listener.name())).spawn(move || {
        // Nobody listens any more when serving was given up: then the result does not matter.
        let _ = end.send(vital_here(SupervisedTask::Serving, || worker::run(shared, listener, socket, stage)));
    })?;
    Ok(ended)
}
