//! Where the bytes of a medium are had that came with a message: which calls, and from which hosts only.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::content::{Handle, Media};
use crate::exchange::{HttpRequest, HttpResponse};
use crate::outcome::named_enum;

/// Longest address of a medium. Signed links of networks that deliver media have up to about 1 KiB.
const URL_BYTES_MAX: usize = 4096;
/// Longest id or path of a medium at a platform.
const ID_BYTES_MAX: usize = 1024;

named_enum! {
/// Why a medium was not had: the rule that it broke, or what happened.
MediaFault {
    /// The address is none that may be fetched: not `https`, or with parts that no platform uses.
    BadAddress = "bad_address",
    /// The address leads to a host that is not the channel's.
    HostNotAllowed = "host_not_allowed",
    /// The host has no public address.
    AddressBlocked = "address_blocked",
    /// The host answers that the bytes are elsewhere; nobody is followed.
    Redirected = "redirected",
    /// It has more bytes than `media.max`, or than the platform gives out.
    TooLarge = "too_large",
    /// It has no bytes.
    Empty = "empty",
    /// It has another number of bytes than the platform says.
    SizeMismatch = "size_mismatch",
    /// Its bytes are not those that the platform says.
    DigestMismatch = "digest_mismatch",
    /// It is something else than the platform says: no picture, sound or film.
    TypeMismatch = "type_mismatch",
    /// It is two things at once: a picture, sound or film that is a program, page or archive as well.
    Polyglot = "polyglot",
    /// It did not come within `media.timeout`.
    Timeout = "timeout",
    /// The connection broke before all of it had come.
    CutShort = "cut_short",
    /// The platform does not answer, or says that it cannot now.
    Unavailable = "unavailable",
    /// The platform refused the account's credential.
    CredentialRefused = "credential_refused",
    /// The platform has it no more.
    Gone = "gone",
    /// The platform's answer is not to be understood.
    BadAnswer = "bad_answer",
    /// There is no room: `media.max_total`.
    Full = "full",
    /// The media store does not take it now.
    StoreUnavailable = "store_unavailable",
    /// Too many are fetched at this moment.
    Busy = "busy",
    /// The channel has no bytes of it, or the account is gone.
    Unsupported = "unsupported",
}
}

impl MediaFault {
    /// Whether asking again may bring it.
    pub fn is_passing(self) -> bool {
        match self {
            Self::Timeout
            | Self::CutShort
            | Self::Unavailable
            | Self::CredentialRefused
            | Self::Full
            | Self::StoreUnavailable
            | Self::Busy => true,
            Self::BadAddress
            | Self::HostNotAllowed
            | Self::AddressBlocked
            | Self::Redirected
            | Self::TooLarge
            | Self::Empty
            | Self::SizeMismatch
            | Self::DigestMismatch
            | Self::TypeMismatch
            | Self::Polyglot
            | Self::Gone
            | Self::BadAnswer
            | Self::Unsupported => false,
        }
    }

    /// What a status of a platform or of its host of media means; none: it is the answer.
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            200 => None,
            300..=399 => Some(Self::Redirected),
            401 | 403 => Some(Self::CredentialRefused),
            404 | 410 => Some(Self::Gone),
            408 | 425 | 429 | 500.. => Some(Self::Unavailable),
            _ => Some(Self::BadAnswer),
        }
    }
}

/// A medium that came with a message.
#[derive(Debug, Clone, Copy)]
pub struct FoundMedia<'a> {
    /// The `type` that it stands under.
    pub kind: &'a str,
    /// What its message says of it.
    pub media: &'a Media,
    /// The platform's id of the message.
    pub message: &'a str,
    /// Whose conversation it is.
    pub from: &'a Handle,
}

/// Where its bytes are.
#[derive(Debug, Clone)]
pub enum MediaSource {
    /// The platform is to be asked first; `Channel::media_at` reads its answer.
    Ask(HttpRequest),
    /// There.
    Get(HttpRequest),
    /// In the piece itself: `Channel::media_parts`.
    Piece,
}

/// Whether bytes may be fetched from an address: by `https` from a host whose name is one of these or ends with one of them, or from
/// the very origin of the account's `base` (a simulator, a proxy of the operator's).
///
/// # Errors
/// Which rule it breaks.
pub fn may_fetch(url: &str, hosts: &[&str], base: &str) -> Result<(), MediaFault> {
    if url.len() > URL_BYTES_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(MediaFault::BadAddress);
    }
    let origin = origin(url).ok_or(MediaFault::BadAddress)?;
    if self::origin(base) == Some(origin.clone()) {
        return Ok(());
    }
    let host = origin.strip_prefix("https://").ok_or(MediaFault::BadAddress)?;
    let host = host.strip_suffix(":443").unwrap_or(host);
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if !is_name {
        return Err(MediaFault::HostNotAllowed);
    }
    let belongs = |suffix: &&str| host == *suffix || host.strip_suffix(*suffix).is_some_and(|rest| rest.ends_with('.'));
    if hosts.iter().any(belongs) { Ok(()) } else { Err(MediaFault::HostNotAllowed) }
}

/// Scheme, host and port, in lower case. None when it has a user, or is none that two readers would read alike.
fn origin(url: &str) -> Option<String> {
    let at = url.find("://")?;
    let rest = &url[at + 3..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.is_empty() || authority.contains(['@', '\\', '%']) || url.contains('\\') {
        return None;
    }
    Some(url[..at + 3 + end].to_ascii_lowercase())
}

/// A GET of an address with these headers.
pub(super) fn get(url: String, headers: Vec<(HeaderName, HeaderValue)>) -> HttpRequest {
    HttpRequest { method: http::Method::GET, url, headers, body: Bytes::new() }
}

/// The bytes are where the message says.
pub(super) fn linked(found: &FoundMedia<'_>) -> Option<MediaSource> {
    let link = found.media.link.as_ref().filter(|link| !link.is_empty())?;
    Some(MediaSource::Get(get(link.clone(), Vec::new())))
}

/// The medium's id at the platform, when it can stand in a path: nothing in it ends or leaves the path.
pub(super) fn plain_id<'a>(found: &FoundMedia<'a>) -> Option<&'a str> {
    let id = found.media.id.as_deref()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(is_plain)).then_some(id)
}

/// The object that a platform answers with when it was asked where a medium is.
pub(super) fn answered(response: &HttpResponse) -> Result<Map<String, Value>, MediaFault> {
    if let Some(fault) = MediaFault::of_status(response.status) {
        return Err(fault);
    }
    serde_json::from_slice(&response.body).map_err(|_| MediaFault::BadAnswer)
}
