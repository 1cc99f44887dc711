//! The media library of a node: where bytes are kept, and the sweep of what is over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use messaging::clock::SharedClock;
use messaging::config::{Config, MediaPlace, Role};
use messaging::keeper::DirectoryKeeper;
use messaging::media::{Blobs, DirectoryBlobs, Library, LibraryParts, LinkTerms, Vault, VaultSettings};
use messaging::seal::Keyring;
use router::egress::Door;

use crate::backends::Backends;

/// How often what is over is deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Opens it.
#[allow(clippy::too_many_arguments, reason = "it is put together from everything that the node has opened before")]
pub fn open(
    config: &Config,
    data_dir: &Path,
    backends: &Backends,
    keeper: &DirectoryKeeper,
    keyring: &Keyring,
    clock: &SharedClock,
    door: Arc<Door>,
    public_url: &str,
) -> anyhow::Result<Arc<Library>> {
    let media = &config.media;
    let blobs: Arc<dyn Blobs> = match &media.place {
        MediaPlace::Folder(folder) => {
            let folder = folder.clone().unwrap_or_else(|| data_dir.join("media"));
            let opened = DirectoryBlobs::open(&folder);
            Arc::new(opened.with_context(|| format!("media.dir: the folder {} cannot be made", folder.display()))?)
        }
        MediaPlace::S3(_) => anyhow::bail!("media.dir: buckets are not built yet"),
    };
    let settings =
        VaultSettings { max_bytes: media.max_bytes, max_total: media.max_total, lifetime: media.ttl.min(config.retention.messages) };
    let vault = Arc::new(Vault::new(blobs, keyring.ids().clone(), clock.clone(), settings));
    // A router alone knows where the gateways are only when it is told.
    let knows = config.node.public_url.is_some() || config.has_role(Role::Gateway);
    let links = LinkTerms { public_url: knows.then(|| public_url.to_owned()), ttl: media.link_ttl };
    Ok(Library::new(LibraryParts {
        vault,
        download: door,
        directory: keeper.shared().clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        channels: config.channels.clone(),
        log: backends.ingress.clone(),
        links,
        timeout: media.timeout,
    }))
}

/// Sweeps at the start and now and then, until aborted.
pub async fn sweep(library: Arc<Library>, clock: SharedClock) {
    loop {
        if let Err(error) = library.vault().sweep().await {
            tracing::warn!(%error, "media that are over are not swept");
        }
        clock.sleep(SWEEP_EVERY).await;
    }
}
