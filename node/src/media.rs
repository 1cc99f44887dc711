//! The media library of a node: where bytes are kept, and the sweep of what is over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use messaging::clock::SharedClock;
use messaging::config::{Config, MediaBucket, MediaPlace, Role};
use messaging::keeper::DirectoryKeeper;
use messaging::media::{Blobs, DirectoryBlobs, Library, LibraryParts, LinkTerms, S3Blobs, S3Settings, Vault, VaultSettings};
use messaging::seal::{Keyring, Secret};
use router::egress::{self, AllowedNetwork, Door, Policy};

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
        MediaPlace::S3(bucket) => Arc::new(s3(bucket, &data_dir.join("media-spool"), clock)?),
    };
    if matches!(media.place, MediaPlace::Folder(None)) && !(config.has_role(Role::Gateway) && config.has_role(Role::Router)) {
        tracing::warn!("media.dir is not set: this process keeps media of its own, name a folder or bucket that all processes share");
    }
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

fn s3(bucket: &MediaBucket, spool: &Path, clock: &SharedClock) -> anyhow::Result<S3Blobs> {
    let file = &bucket.secret_key_file;
    let secret = std::fs::read_to_string(file).with_context(|| format!("media.s3.secret_key_file: {}", file.display()))?;
    let settings = S3Settings {
        endpoint: bucket.endpoint.clone(),
        region: bucket.region.clone(),
        bucket: bucket.bucket.clone(),
        prefix: bucket.prefix.clone(),
        access_key: bucket.access_key.clone(),
        secret_key: Secret::new(secret.trim()),
    };
    // The operator's own address, in whatever network it is: no stranger has a say in it.
    let anywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let allow = anywhere.map(|net| AllowedNetwork { net, prefix: 0, port: None }).into();
    let settings_of_door = egress::Settings { policy: Policy { allow, ..Policy::default() }, ..egress::Settings::default() };
    let door = Arc::new(Door::new(settings_of_door, clock.clone())?);
    S3Blobs::open(settings, spool, door, clock.clone()).with_context(|| format!("the folder {} cannot be made", spool.display()))
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
