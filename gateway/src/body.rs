//! Bodies, bounded in size and time.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::bounds::Bounds;

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
    /// Too much is arriving already.
    Busy,
}

/// The whole body, of at most `max` bytes.
pub(crate) async fn collect(mut body: Incoming, max: usize, within: Duration, bounds: &Bounds) -> Result<Bytes, BodyError> {
    let collected = collect_from(&mut body, max, within, bounds).await;
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

/// What is there at once is taken at once. What has to be waited for does not count among the requests under way meanwhile, and its bytes
/// have a budget: nothing is reserved for what a sender says that will come.
async fn collect_from(body: &mut Incoming, max: usize, within: Duration, bounds: &Bounds) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut whole = BytesMut::new();
    match std::future::poll_fn(|context| std::task::Poll::Ready(poll_rest(body, &mut whole, max, context))).await {
        std::task::Poll::Ready(rest) => return rest.map(|only| only.unwrap_or_else(|| whole.freeze())),
        std::task::Poll::Pending => {}
    }
    // Boxed: a webhook's future is moved with every request, and few have to wait here.
    tokio::time::timeout(within, Box::pin(wait_for_rest(body, whole, max, bounds))).await.unwrap_or(Err(BodyError::Timeout))
}

async fn wait_for_rest(body: &mut Incoming, mut whole: BytesMut, max: usize, bounds: &Bounds) -> Result<Bytes, BodyError> {
    let mut arriving = bounds.arrive().ok_or(BodyError::Busy)?;
    if !arriving.grow(whole.len()) {
        return Err(BodyError::Busy);
    }
    while let Some(more) = data(body).await? {
        if whole.len() + more.len() > max {
            return Err(BodyError::TooLarge);
        }
        if !arriving.grow(more.len()) {
            return Err(BodyError::Busy);
        }
        whole.extend_from_slice(&more);
    }
    Ok(whole.freeze())
}

/// Takes what is there. Ready: the body is whole; its only piece, when it has one.
fn poll_rest(
    body: &mut Incoming,
    whole: &mut BytesMut,
    max: usize,
    context: &mut std::task::Context<'_>,
) -> std::task::Poll<Result<Option<Bytes>, BodyError>> {
    use std::task::Poll;
    loop {
        let frame = match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(Ok(None)),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(BodyError::Broken)),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Poll::Ready(Err(BodyError::TooLarge));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Poll::Ready(Ok(Some(data)));
        }
        whole.extend_from_slice(&data);
        if body.is_end_stream() {
            return Poll::Ready(Ok(None));
        }
    }
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
