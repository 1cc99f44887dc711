//! Fetches media, keeps them, and tells what became of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use foldhash::fast::RandomState;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::watch;

use super::{About, Answer, BodyStream, Download, Found, Incoming, LinkTerms, Medium, Sniffer, Vault};
use crate::channels::{ChannelKind, ChannelSettings, FoundMedia, MediaFault, MediaSource, channel, may_fetch};
use crate::clock::{SharedClock, Timestamp};
use crate::content::{Content, Handle, Media};
use crate::directory::{Account, SharedDirectory};
use crate::exchange::{HttpRequest, HttpResponse};
use crate::ids::{ConversationId, MediaId, MessageId};
use crate::log::{Log, Topic};
use crate::metrics;
use crate::record::{Command, MediaNews, Record};
use crate::seal::{DataKey, Keyring};
use crate::tenant::{Owned, Tenant};

/// Media that are fetched at once by one process.
const FLIGHTS_MAX: usize = 64;
/// Media that are remembered as not to be had, and for how long.
const REFUSED_MAX: usize = 4096;
const REFUSED_FOR: Duration = Duration::from_secs(300);
/// Media taken back that are remembered, for those that are under way.
const FORGOTTEN_MAX: usize = 1024;
/// Most bytes of a platform's answer to where a medium is.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A medium of a message that came in, and all that is needed to fetch it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose, and of which account.
    pub owner: Owned,
    /// Its channel.
    pub channel: ChannelKind,
    /// The conversation of its message.
    pub conversation: ConversationId,
    /// Its message.
    pub message: MessageId,
    /// The platform's id of the message.
    pub platform_id: String,
    /// Whose conversation it is.
    pub from: Handle,
    /// Its id.
    pub id: MediaId,
    /// The `type` that it stands under.
    pub kind: &'static str,
    /// What its message says of it.
    pub media: Media,
    /// When its message came.
    pub at: Timestamp,
}

/// The media of a stored message, from its event's data: each with the `type` that it stands under.
pub fn media_of(data: &str) -> Vec<(&'static str, Media)> {
    let Ok(Value::Object(data)) = serde_json::from_str(data) else { return Vec::new() };
    let Some(content) = data.get("message").and_then(Value::as_object).and_then(|message| Content::from_members(message).ok()) else {
        return Vec::new();
    };
    content.media().into_iter().map(|(kind, media)| (kind, media.clone())).collect()
}

/// What a library works with.
pub struct LibraryParts {
    /// Where media are kept.
    pub vault: Arc<Vault>,
    /// The way out.
    pub download: Arc<dyn Download>,
    /// Accounts and keys.
    pub directory: SharedDirectory,
    /// Keys.
    pub keyring: Keyring,
    /// Time.
    pub clock: SharedClock,
    /// The channels that are on.
    pub channels: BTreeMap<ChannelKind, ChannelSettings>,
    /// Where news go.
    pub log: Arc<dyn Log>,
    /// How links are made.
    pub links: LinkTerms,
    /// How long a medium may take from the first call to its last byte.
    pub timeout: Duration,
}

type Landed = Option<Result<Medium, MediaFault>>;

/// The media of an installation, as one process sees them.
pub struct Library {
    parts: LibraryParts,
    flights: Mutex<HashMap<MediaId, watch::Receiver<Landed>, RandomState>>,
    /// Media that were not had for a reason that does not pass, and until when nobody asks again.
    refused: Mutex<HashMap<MediaId, (MediaFault, Timestamp), RandomState>>,
    /// The newest media that were taken back.
    forgotten: Mutex<VecDeque<MediaId>>,
}

impl Library {
    /// A library. Nothing runs yet.
    pub fn new(parts: LibraryParts) -> Arc<Self> {
        Arc::new(Self { parts, flights: Mutex::default(), refused: Mutex::default(), forgotten: Mutex::default() })
    }

    /// Where media are kept.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.parts.vault
    }

    /// How links are made.
    pub fn links(&self) -> &LinkTerms {
        &self.parts.links
    }

    fn key(&self, tenant: Tenant) -> Result<DataKey, MediaFault> {
        self.parts.directory.load().tenant_key(tenant).cloned().ok_or(MediaFault::Unsupported)
    }

    /// A medium that is here; none when it is not, or not any more.
    ///
    /// # Errors
    /// `StoreUnavailable` when that cannot be told.
    pub async fn find(&self, tenant: Tenant, id: MediaId) -> Result<Option<Found>, MediaFault> {
        let key = self.key(tenant)?;
        self.parts.vault.find(tenant, id, &key).await.map_err(|error| {
            tracing::error!(%error, medium = %id, "a medium cannot be read");
            MediaFault::StoreUnavailable
        })
    }

    /// Begins to take a file that a merchant brings.
    ///
    /// # Errors
    /// `Full`, or `StoreUnavailable`.
    pub async fn upload(&self, tenant: Tenant) -> Result<Upload, MediaFault> {
        let incoming = self.parts.vault.begin(tenant, &self.key(tenant)?).await?;
        Ok(Upload { tenant, incoming, sniffer: Sniffer::default() })
    }

    /// Keeps it. The same bytes of the same tenant are the same medium, whose lifetime begins anew.
    ///
    /// # Errors
    /// `Empty`, or `StoreUnavailable`.
    pub async fn keep_upload(&self, upload: Upload, filename: Option<String>) -> Result<(MediaId, Medium), MediaFault> {
        let Upload { tenant, incoming, sniffer } = upload;
        if incoming.size_bytes() == 0 {
            return Err(MediaFault::Empty);
        }
        let id = self.parts.keyring.ids().uploaded_medium(tenant.id(), &incoming.sha256());
        let about = About { kind: sniffer.kind(), filename, at: self.parts.clock.now() };
        Ok((id, self.parts.vault.keep(incoming, id, about).await?))
    }

    /// How long a medium may take from its first byte to its last.
    pub fn timeout(&self) -> Duration {
        self.parts.timeout
    }

    /// The link to a medium that is made now.
    pub fn link(&self, tenant: Tenant, id: MediaId) -> Option<String> {
        self.parts.links.link(self.parts.keyring.ids(), tenant.id(), id, self.parts.clock.now())
    }

    /// Fetches a medium, or finds it here. Whoever asks for the same one meanwhile gets the same answer. It goes on when the caller
    /// does not wait, and what became of it is told on the log; what may pass only when `tells_passing`, because nobody tries again.
    ///
    /// # Errors
    /// The rule that it broke, or what happened.
    pub async fn fetch(self: &Arc<Self>, wanted: Wanted, tells_passing: bool) -> Result<Medium, MediaFault> {
        if let Some(fault) = self.refused_lately(wanted.id) {
            return Err(fault);
        }
        let mut landed = {
            let mut flights = self.flights.lock().expect("no holder of the flights panics");
            match flights.get(&wanted.id) {
                Some(landed) => landed.clone(),
                None if flights.len() >= FLIGHTS_MAX => return Err(MediaFault::Busy),
                None => {
                    let (tell, landed) = watch::channel(None);
                    flights.insert(wanted.id, landed.clone());
                    tokio::spawn(self.clone().fly(wanted, tells_passing, tell));
                    landed
                }
            }
        };
        match landed.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(MediaFault::Unavailable)),
            // It panicked, which its task has told.
            Err(_) => Err(MediaFault::Unavailable),
        }
    }

    async fn fly(self: Arc<Self>, wanted: Wanted, tells_passing: bool, tell: watch::Sender<Landed>) {
        // Also when it panics the next one may try.
        let _flight = Flight { library: &self, id: wanted.id };
        let result = match self.find(wanted.owner.tenant, wanted.id).await {
            Ok(Some(found)) => Ok(found.medium),
            Ok(None) => {
                let coming = tokio::time::timeout(self.parts.timeout, self.bring(&wanted));
                let result = coming.await.unwrap_or(Err(MediaFault::Timeout));
                self.remember(wanted.id, &result);
                if tells_passing || !result.as_ref().is_err_and(|fault| fault.is_passing()) {
                    self.tell(&wanted, &result).await;
                }
                result
            }
            Err(fault) => Err(fault),
        };
        tell.send_replace(Some(result));
    }

    /// Deletes a medium whose person took it back; one that is under way is not kept.
    pub async fn forget(&self, tenant: Tenant, id: MediaId) {
        {
            let mut forgotten = self.forgotten.lock().expect("no holder of the forgotten panics");
            if forgotten.len() == FORGOTTEN_MAX {
                forgotten.pop_front();
            }
            forgotten.push_back(id);
        }
        if let Err(error) = self.parts.vault.forget(tenant, id).await {
            tracing::error!(%error, medium = %id, "a withdrawn medium is not deleted; it goes when its time is over");
        }
    }

    fn is_forgotten(&self, id: MediaId) -> bool {
        self.forgotten.lock().expect("no holder of the forgotten panics").contains(&id)
    }

    /// Why it was not had a short while ago, when that does not pass: nobody makes us ask a platform again and again.
    fn refused_lately(&self, id: MediaId) -> Option<MediaFault> {
        let refused = self.refused.lock().expect("no holder of the refused panics");
        refused.get(&id).filter(|(_, until)| self.parts.clock.now() < *until).map(|(fault, _)| *fault)
    }

    fn remember(&self, id: MediaId, result: &Result<Medium, MediaFault>) {
        let mut refused = self.refused.lock().expect("no holder of the refused panics");
        let now = self.parts.clock.now();
        match result {
            Err(fault) if !fault.is_passing() => {
                if refused.len() >= REFUSED_MAX {
                    refused.retain(|_, (_, until)| now < *until);
                }
                if refused.len() < REFUSED_MAX {
                    refused.insert(id, (*fault, now.plus(REFUSED_FOR)));
                }
            }
            Ok(_) | Err(_) => drop(refused.remove(&id)),
        }
    }

    /// The account of a medium, as long as it is its tenant's, and the channel is on.
    fn account(&self, wanted: &Wanted) -> Result<(Arc<Account>, &ChannelSettings), MediaFault> {
        let directory = self.parts.directory.load();
        let account = directory.account_of(wanted.owner.tenant, wanted.owner.account).cloned().ok_or(MediaFault::Unsupported)?;
        let settings = self.parts.channels.get(&wanted.channel).filter(|_| account.channel == wanted.channel);
        Ok((account, settings.ok_or(MediaFault::Unsupported)?))
    }

    async fn bring(&self, wanted: &Wanted) -> Result<Medium, MediaFault> {
        if self.parts.vault.is_over(wanted.at) || self.is_forgotten(wanted.id) {
            return Err(MediaFault::Gone);
        }
        let (account, settings) = self.account(wanted)?;
        let kind = channel(wanted.channel);
        let found = FoundMedia { kind: wanted.kind, media: &wanted.media, message: &wanted.platform_id, from: &wanted.from };
        let request = match kind.media(&found, &account, settings).ok_or(MediaFault::Unsupported)? {
            MediaSource::Ask(request) => kind.media_at(&found, &self.ask(request).await?, &account, settings)?,
            MediaSource::Get(request) => request,
            // It stood in the piece, which is gone.
            MediaSource::Piece => return Err(MediaFault::Gone),
        };
        may_fetch(&request.url, kind.media_hosts(), settings.base(&account))?;
        let answer = self.parts.download.open(request, self.parts.timeout).await.map_err(|error| error.fault())?;
        if let Some(fault) = MediaFault::of_status(answer.status) {
            return Err(fault);
        }
        self.check_announced(wanted, &answer)?;
        self.take_in(wanted, answer.body).await
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, MediaFault> {
        let Answer { status, headers, mut body } =
            self.parts.download.open(request, self.parts.timeout).await.map_err(|error| error.fault())?;
        let mut read = BytesMut::new();
        while let Some(piece) = body.next().await {
            read.extend_from_slice(&piece.map_err(|error| error.fault())?);
            if read.len() > ANSWER_BYTES_MAX {
                return Err(MediaFault::BadAnswer);
            }
        }
        Ok(HttpResponse { status, retry_after: None, headers, body: read.freeze() })
    }

    /// What is too large by its own word is not begun.
    fn check_announced(&self, wanted: &Wanted, answer: &Answer) -> Result<(), MediaFault> {
        let length = answer.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let max = self.parts.vault.settings().max_bytes;
        let is_larger = |size: Option<u64>| size.is_some_and(|size| size > max);
        if is_larger(length) || is_larger(wanted.media.size_bytes) { Err(MediaFault::TooLarge) } else { Ok(()) }
    }

    /// Reads, looks and seals as it comes; keeps it when everything is as it was said to be.
    async fn take_in(&self, wanted: &Wanted, mut body: BodyStream) -> Result<Medium, MediaFault> {
        let tenant = wanted.owner.tenant;
        let mut incoming = self.parts.vault.begin(tenant, &self.key(tenant)?).await?;
        let mut sniffer = Sniffer::default();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| error.fault())?;
            sniffer.feed(&piece);
            incoming.write(&piece).await?;
        }
        check(wanted, incoming.size_bytes(), &incoming.sha256(), &sniffer)?;
        metrics::MEDIA_BYTES.at([wanted.channel.index(), metrics::Direction::Inbound.index()]).increment(incoming.size_bytes());
        let about = About { kind: sniffer.kind(), filename: wanted.media.filename.clone(), at: wanted.at };
        let kept = self.parts.vault.keep(incoming, wanted.id, about).await?;
        if self.is_forgotten(wanted.id) {
            // Taken back while it came: whoever asked to forget it found nothing to delete.
            self.forget(tenant, wanted.id).await;
            return Err(MediaFault::Gone);
        }
        Ok(kept)
    }

    /// Keeps a medium whose bytes came with its message, and says what is to be told of it.
    pub async fn keep(&self, wanted: &Wanted, bytes: Bytes) -> MediaNews {
        let body: BodyStream = Box::pin(futures_util::stream::once(std::future::ready(Ok(bytes))));
        let kept = tokio::time::timeout(self.parts.timeout, self.take_in(wanted, body)).await;
        news(&kept.unwrap_or(Err(MediaFault::Timeout)))
    }

    async fn tell(&self, wanted: &Wanted, result: &Result<Medium, MediaFault>) {
        let record = record(wanted, news(result), self.parts.clock.now());
        let new = record.to_new(Topic::Outbound, self.parts.log.partitions(), self.parts.keyring.log());
        for told in self.parts.log.append(vec![new]).await {
            if let Err(error) = told {
                tracing::warn!(%error, medium = %wanted.id, "what became of a medium is not told");
            }
        }
    }
}

/// A file that a merchant brings.
pub struct Upload {
    tenant: Tenant,
    incoming: Incoming,
    sniffer: Sniffer,
}

impl Upload {
    /// Takes in more of it.
    ///
    /// # Errors
    /// `TooLarge` as soon as it is, or `StoreUnavailable`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), MediaFault> {
        self.sniffer.feed(bytes);
        self.incoming.write(bytes).await
    }

    /// Whether it is what was said of it: `image`, `audio` or `video`; anything else may be anything.
    pub fn is_what(&self, kind: &str) -> bool {
        self.sniffer.is_what(kind, true)
    }
}

/// Takes a flight off the list when it is over.
struct Flight<'a> {
    library: &'a Library,
    id: MediaId,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.library.flights.lock().expect("no holder of the flights panics").remove(&self.id);
    }
}

/// The record that tells it.
pub fn record(wanted: &Wanted, news: MediaNews, now: Timestamp) -> Record {
    let command = Command::Medium { medium: wanted.id, message: wanted.message, news };
    Record::command(wanted.owner, wanted.channel, wanted.conversation, &command, now)
}

fn news(result: &Result<Medium, MediaFault>) -> MediaNews {
    match result {
        Ok(medium) => {
            MediaNews::Ready { mime_type: medium.kind.clone(), size_bytes: medium.size_bytes, sha256: HEXLOWER.encode(&medium.sha256) }
        }
        Err(reason) => {
            metrics::MEDIA_FAILURES.at([reason.index()]).increment(1);
            MediaNews::Failed { reason: *reason }
        }
    }
}

/// Whether what came is what was said to come.
fn check(wanted: &Wanted, size_bytes: u64, sha256: &[u8; 32], sniffer: &Sniffer) -> Result<(), MediaFault> {
    if size_bytes == 0 {
        return Err(MediaFault::Empty);
    }
    if wanted.media.size_bytes.is_some_and(|said| said != size_bytes) {
        return Err(MediaFault::SizeMismatch);
    }
    if wanted.media.sha256.as_deref().and_then(digest).is_some_and(|said| said != *sha256) {
        return Err(MediaFault::DigestMismatch);
    }
    // What says of itself that it is of a kind not known here is taken as any file is: saved, and never run.
    let is_of_known_kind = wanted.media.mime_type.as_deref().is_none_or(Sniffer::knows);
    let kind = if is_of_known_kind { wanted.kind } else { "document" };
    if !sniffer.is_what(kind, wanted.media.animated == Some(true)) {
        return Err(MediaFault::TypeMismatch);
    }
    if kind != "document" && sniffer.is_polyglot() {
        return Err(MediaFault::Polyglot);
    }
    Ok(())
}

/// A SHA-256 as platforms write it: in base64 or in hexadecimal. In any other form it proves nothing.
fn digest(text: &str) -> Option<[u8; 32]> {
    let decoded = if text.len() == 64 { HEXLOWER_PERMISSIVE.decode(text.as_bytes()) } else { BASE64.decode(text.as_bytes()) };
    decoded.ok()?.try_into().ok()
}
