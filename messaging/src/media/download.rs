//! How the room reaches platforms and S3: by the process's one guarded door, which the node brings.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::BoxFuture;
use crate::channels::MediaFault;
use crate::exchange::HttpRequest;

/// A call that brought no answer, or whose answer broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// The address may not be called at all.
    #[error("the address may not be called")]
    Address,
    /// Every address of the host is forbidden: not public.
    #[error("the host has no public address")]
    Blocked,
    /// No connection came about.
    #[error("no connection")]
    Connect,
    /// The deadline passed.
    #[error("the deadline passed")]
    Timeout,
    /// The connection broke, before the answer was complete.
    #[error("the connection broke")]
    Broken,
}

impl DownloadError {
    /// What it means for a medium.
    pub(super) fn fault(self) -> MediaFault {
        match self {
            Self::Address => MediaFault::BadAddress,
            Self::Blocked => MediaFault::AddressBlocked,
            Self::Connect => MediaFault::Unavailable,
            Self::Timeout => MediaFault::Timeout,
            Self::Broken => MediaFault::CutShort,
        }
    }
}

/// A body as it comes.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, DownloadError>> + Send>>;

/// An answer whose body is still to come. Redirects are answers like any other.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: BodyStream,
}

/// Makes calls whose answers are read piece by piece.
pub trait Download: Send + Sync {
    /// Makes a call; all of it, body included, is over when the deadline passes. Dropping the body closes the connection.
    fn open(&self, request: HttpRequest, deadline: Duration) -> BoxFuture<'_, Result<Answer, DownloadError>>;
}
