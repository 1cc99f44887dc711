//! Bodies, bounded in size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// Largest buffer that is made for a body before its bytes have come.
const RESERVE_BYTES_MAX: usize = 256 * 1024;

/// Most of a body that is too large which is read and thrown away, so that its sender gets to read the answer: a connection
/// that closes with bytes unread is reset, and the answer with it.
const DISCARDED_BYTES_MAX: usize = 4 << 20;
/// How long that may take.
const DISCARDING_MAX: Duration = Duration::from_secs(1);

/// A body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Larger than allowed.
    TooLarge,
    /// Did not come in time.
    Timeout,
    /// The peer broke off, or framed it wrongly.
    Broken,
}

/// The whole body, of at most `max` bytes.
pub(crate) async fn collect(mut body: Incoming, max: usize, within: Duration) -> Result<Bytes, BodyError> {
    let collected = collect_from(&mut body, max, within).await;
    if collected == Err(BodyError::TooLarge) {
        discard_rest(&mut body).await;
    }
    collected
}

/// Reads some of what is left of a body that is refused, for a moment.
pub(crate) async fn discard_rest(body: &mut Incoming) {
    // However it ends, the answer is the same.
    let _ = tokio::time::timeout(DISCARDING_MAX, discard(body)).await;
}

async fn discard(body: &mut Incoming) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Ok(Some(data)) = data(body).await {
        if data.len() >= left {
            return;
        }
        left -= data.len();
    }
}

async fn collect_from(body: &mut Incoming, max: usize, within: Duration) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let reading = async {
        let first = data(body).await?.unwrap_or_default();
        if first.len() > max {
            return Err(BodyError::TooLarge);
        }
        if body.is_end_stream() {
            return Ok(first);
        }
        let expected = usize::try_from(body.size_hint().lower()).unwrap_or(max).min(RESERVE_BYTES_MAX);
        let mut whole = BytesMut::with_capacity(first.len() + expected);
        whole.extend_from_slice(&first);
        while let Some(more) = data(body).await? {
            if whole.len() + more.len() > max {
                return Err(BodyError::TooLarge);
            }
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(within, reading).await.unwrap_or(Err(BodyError::Timeout))
}

/// The next bytes; trailers are nothing to us.
pub(crate) async fn data(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
