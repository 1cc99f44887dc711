//! Answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::Value;

/// An answer.
pub type Reply = http::Response<ReplyBody>;

/// An answer's body.
pub enum ReplyBody {
    /// All there is; none when it was taken, or when there is nothing.
    Whole(Option<Bytes>),
    /// It goes on for as long as somebody reads.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A status and nothing more.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::new(ReplyBody::Whole(None));
    *reply.status_mut() = status;
    reply
}

/// Bytes of a media type.
pub fn typed(status: StatusCode, media_type: &'static str, bytes: Bytes) -> Reply {
    let mut reply = Reply::new(ReplyBody::Whole(Some(bytes)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// A JSON document.
pub fn json(status: StatusCode, value: &Value) -> Reply {
    typed(status, "application/json", Bytes::from(value.to_string()))
}

/// JSON text that is ready.
pub fn json_text(status: StatusCode, text: String) -> Reply {
    typed(status, "application/json", Bytes::from(text))
}
