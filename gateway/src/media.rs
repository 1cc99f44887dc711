//! Media over HTTP: read with a key or by a link, brought by merchants. What is not here yet is fetched while its platform has it.
//!
//! Whatever a stranger's file is, a browser only ever saves it: attachment, no sniffing, a sandbox without scripts, no shared caches.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::{Body, Incoming};
use messaging::channels::MediaFault;
use messaging::content::{Content, Handle};
use messaging::ids::MediaId;
use messaging::media::{Found, Wanted, media_of, read_link};
use messaging::state::{Conversation, MessageRow, Pointer};
use messaging::store::Key;
use messaging::tenant::Tenant;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::api::query::Query;
use crate::api::{Call, away, damaged};
use crate::body::{self, BodyError};
use crate::edge::is_encoded;
use crate::problem::{Code, Problem};
use crate::reply::{self, Reply, ReplyBody};
use crate::shared::Shared;

/// Longest file name of an upload, in characters.
const FILENAME_CHARS_MAX: usize = 200;
/// What may not stand as it is in the extended form of a header's parameter (RFC 8187).
const NOT_IN_PARAMETERS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// `GET /media/{token}`: forged, over and foreign links look alike.
pub(crate) async fn linked(shared: &Arc<Shared>, headers: &HeaderMap, token: &str) -> Result<Reply, Problem> {
    let parts = &shared.parts;
    let (tenant, id) = read_link(parts.keyring.ids(), token, shared.now()).ok_or_else(Problem::not_found)?;
    // We wrote it into the link, and the link proves it.
    let tenant = parts.keeper.shared().load().tenant_of_row(tenant).ok_or_else(Problem::not_found)?;
    match obtain(shared, tenant, id).await? {
        Ok(found) => Ok(serve(shared, found, id, headers)),
        Err(fault) if fault.is_passing() => Err(unavailable(fault)),
        Err(_) => Err(Problem::not_found()),
    }
}

/// `GET /v1/media/{id}`
pub(crate) async fn read(call: &Call<'_>) -> Result<Reply, Problem> {
    Query::parse(call.query, &[])?;
    let id: MediaId = call.id()?;
    match obtain(call.shared(), call.tenant(), id).await? {
        Ok(found) => Ok(serve(call.shared(), found, id, call.headers)),
        Err(fault) if fault.is_passing() => Err(unavailable(fault)),
        Err(fault) => Err(Problem::new(Code::Gone, "the medium cannot be had").with("reason", fault.name())),
    }
}

fn unavailable(fault: MediaFault) -> Problem {
    Problem::new(Code::MediaUnavailable, "the medium cannot be had now").with("reason", fault.name())
}

/// Whether the media that a message names by our id can be had: a platform is given links to nothing else.
pub(crate) async fn check_named(call: &Call<'_>, content: &Content) -> Result<(), Problem> {
    for (kind, media) in content.media() {
        let Some(id) = media.media else { continue };
        let unknown = || Problem::fault(format!("/{kind}/media"), "there is no medium with this id");
        match obtain(call.shared(), call.tenant(), id).await {
            Ok(Ok(_)) => {}
            Ok(Err(fault)) if fault.is_passing() => return Err(unavailable(fault)),
            Ok(Err(_)) => return Err(unknown()),
            Err(problem) if problem.is_not_found() => return Err(unknown()),
            Err(problem) => return Err(problem),
        }
    }
    Ok(())
}

/// A medium of a tenant: from here, or fetched now.
async fn obtain(shared: &Arc<Shared>, tenant: Tenant, id: MediaId) -> Result<Result<Found, MediaFault>, Problem> {
    let library = &shared.parts.media;
    match library.find(tenant, id).await {
        Ok(Some(found)) => return Ok(Ok(found)),
        Ok(None) => {}
        Err(fault) => return Ok(Err(fault)),
    }
    let wanted = wanted(shared, tenant, id).await?.ok_or_else(Problem::not_found)?;
    if let Err(fault) = library.fetch(wanted, true).await {
        return Ok(Err(fault));
    }
    Ok(library.find(tenant, id).await.and_then(|found| found.ok_or(MediaFault::Gone)))
}

/// What is needed to fetch a medium: from the message that it came with, while that message has its content.
async fn wanted(shared: &Shared, tenant: Tenant, id: MediaId) -> Result<Option<Wanted>, Problem> {
    let store = &shared.parts.store;
    let key = Key::Pointer(tenant.id(), id.0);
    let Some(row) = store.read(vec![key]).await.map_err(|error| away(&error))?.into_iter().next().flatten() else { return Ok(None) };
    let pointer = Pointer::decode(&row).map_err(|_| damaged("pointer"))?;
    let Some((conversation, at, message)) = pointer.message else { return Ok(None) };
    let keys = vec![Key::Message(tenant.id(), conversation, at, message), Key::Conversation(tenant.id(), conversation)];
    let rows = store.read(keys).await.map_err(|error| away(&error))?;
    let [Some(row), Some(state)] = &rows[..] else { return Ok(None) };
    let directory = shared.parts.keeper.shared().load_full();
    let Some(key) = directory.tenant_key(tenant) else { return Ok(None) };
    let row = MessageRow::decode(row).map_err(|_| damaged("message"))?;
    let state = Conversation::open(tenant.id(), conversation, key, state).map_err(|_| damaged("conversation"))?;
    let meta = row.open_meta(tenant.id(), message, key).map_err(|_| damaged("message"))?;
    let content = row.open_content(tenant.id(), message, &state.contact_key()).map_err(|_| damaged("message content"))?;
    let Some((kind, media)) = media_of(&content.unwrap_or_default()).into_iter().find(|(_, media)| media.media == Some(id)) else {
        return Ok(None);
    };
    let Some(account) = directory.account_of(tenant, meta.account) else { return Ok(None) };
    Ok(Some(Wanted {
        owner: account.owner,
        channel: account.channel,
        conversation,
        message,
        platform_id: meta.platform_id.unwrap_or_default(),
        from: state.handles.first().cloned().unwrap_or_else(Handle::account),
        id,
        kind,
        media,
        at: meta.accepted_at,
    }))
}

fn serve(shared: &Shared, found: Found, id: MediaId, headers: &HeaderMap) -> Reply {
    let medium = &found.medium;
    let size = medium.size_bytes;
    let etag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&medium.sha256[..16]));
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_another = text(header::IF_RANGE).is_some_and(|version| version != etag);
    let (status, range) = match text(header::RANGE).filter(|_| !is_another).map_or(Asked::Whole, |range| asked(range, size)) {
        Asked::Whole => (StatusCode::OK, 0..size),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Beyond => {
            let mut reply = reply::empty(StatusCode::RANGE_NOT_SATISFIABLE);
            reply.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
            return reply;
        }
    };
    let disposition = disposition(medium.filename.as_deref(), id);
    let kind = HeaderValue::try_from(&medium.kind).unwrap_or(HeaderValue::from_static(messaging::media::OCTETS));
    let pieces = shared.parts.media.vault().read(found, range.clone()).scan((), |(), piece| {
        // The head has gone out: a body that is shorter than it says is all that can be told.
        let piece = piece.inspect_err(|error| tracing::error!(%error, "a medium breaks off while it is read"));
        std::future::ready(piece.ok())
    });
    let mut reply = Reply::new(ReplyBody::Stream(Box::pin(pieces)));
    *reply.status_mut() = status;
    let out = reply.headers_mut();
    out.insert(header::CONTENT_TYPE, kind);
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        out.insert(header::CONTENT_RANGE, value(&format!("bytes {}-{}/{size}", range.start, range.end - 1)));
    }
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::ETAG, value(&etag));
    out.insert(header::CONTENT_DISPOSITION, disposition);
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, letters and quotes are visible ASCII")
}

/// What of a medium is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    Beyond,
}

/// One range is understood; several, and what is no range, get the whole (RFC 9110, 14.2).
fn asked(range: &str, size: u64) -> Asked {
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else { return Asked::Whole };
    let number = |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(count) if count == 0 || size == 0 => Asked::Beyond,
            Some(count) => Asked::Part(size.saturating_sub(count)..size),
            None => Asked::Whole,
        },
        (first, last) => match (number(first), if last.is_empty() { Some(u64::MAX) } else { number(last) }) {
            (Some(first), Some(last)) if last < first => Asked::Whole,
            (Some(first), Some(_)) if first >= size => Asked::Beyond,
            (Some(first), Some(last)) => Asked::Part(first..last.saturating_add(1).min(size)),
            (None, _) | (_, None) => Asked::Whole,
        },
    }
}

/// `attachment`, with a name that is no path: in plain letters, and as it is.
fn disposition(filename: Option<&str>, id: MediaId) -> HeaderValue {
    let name: String = filename.unwrap_or_default().chars().map(|c| if matches!(c, '/' | '\\') { '_' } else { c }).collect();
    let name = name.trim_matches(['.', ' ']);
    if name.is_empty() {
        return value(&format!("attachment; filename=\"{id}\""));
    }
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
    let plain: String = name.chars().map(|c| if is_plain(&c) { c } else { '_' }).collect();
    let mut out = format!("attachment; filename=\"{plain}\"");
    let _ = write!(out, "; filename*=UTF-8''{}", utf8_percent_encode(name, NOT_IN_PARAMETERS));
    value(&out)
}

/// `POST /v1/media`: the file itself as the body.
pub(crate) async fn upload(call: &Call<'_>, mut incoming: Incoming) -> Result<Reply, Problem> {
    let library = &call.shared().parts.media;
    let query = Query::parse(call.query, &["filename"])?;
    let filename = query.get("filename").map(str::to_owned);
    if filename.as_ref().is_some_and(|name| name.chars().count() > FILENAME_CHARS_MAX) {
        return Err(Problem::fault("?filename", format!("has more than {FILENAME_CHARS_MAX} characters")));
    }
    if is_encoded(call.headers) {
        return Err(Problem::new(Code::UnsupportedMediaType, "content encodings are not taken"));
    }
    let taken = tokio::time::timeout(library.timeout(), take(call, &mut incoming)).await;
    let upload = match taken.unwrap_or(Err(broken(BodyError::Timeout))) {
        Ok(upload) => upload,
        Err(problem) => {
            body::discard_rest(&mut incoming).await;
            return Err(problem.header(header::CONNECTION, HeaderValue::from_static("close")));
        }
    };
    let said = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let of = said.split('/').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !upload.is_what(&of) {
        let detail = format!("the body is no {of}, which its Content-Type says that it is");
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let (id, medium) = library.keep_upload(upload, filename).await.map_err(|fault| match fault {
        MediaFault::Empty => Problem::new(Code::Malformed, "the body is empty: it is to be the file itself"),
        fault => unavailable(fault),
    })?;
    let mut body = json!({
        "id": id, "mime_type": medium.kind, "size_bytes": medium.size_bytes, "sha256": data_encoding::HEXLOWER.encode(&medium.sha256),
        "expires_at": medium.at.plus(library.vault().settings().lifetime),
    });
    if let Some(url) = library.link(call.tenant(), id) {
        body["url"] = url.into();
    }
    let mut reply = reply::json(StatusCode::CREATED, &body);
    reply.headers_mut().insert(header::LOCATION, value(&format!("/v1/media/{id}")));
    Ok(reply)
}

/// Takes in a body, piece by piece.
async fn take(call: &Call<'_>, incoming: &mut Incoming) -> Result<messaging::media::Upload, Problem> {
    let library = &call.shared().parts.media;
    let max = library.vault().settings().max_bytes;
    let too_large = || Problem::new(Code::PayloadTooLarge, format!("a medium may have {max} bytes"));
    if incoming.size_hint().lower() > max {
        return Err(too_large());
    }
    let mut upload = library.upload(call.tenant()).await.map_err(unavailable)?;
    while let Some(piece) = body::data(incoming).await.map_err(broken)? {
        upload.write(&piece).await.map_err(|fault| if fault == MediaFault::TooLarge { too_large() } else { unavailable(fault) })?;
    }
    Ok(upload)
}

fn broken(error: BodyError) -> Problem {
    match error {
        BodyError::Timeout => Problem::new(Code::Timeout, "the body did not come in time"),
        BodyError::Busy => Problem::new(Code::Overloaded, "too many bodies are arriving"),
        BodyError::Broken | BodyError::TooLarge => Problem::new(Code::Malformed, "the body is broken off or framed wrongly"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let table = [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-", Asked::Part(0..10)),
            ("bytes=3-5", Asked::Part(3..6)),
            ("bytes=3-99", Asked::Part(3..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=9-18446744073709551615", Asked::Part(9..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-3", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("", Asked::Whole),
        ];
        for (range, expected) in table {
            assert_eq!(asked(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn names_are_no_paths_and_no_headers() {
        let id = MediaId([0; 16]);
        let table = [
            (None, format!("attachment; filename=\"{id}\"")),
            (Some(".."), format!("attachment; filename=\"{id}\"")),
            (Some("a b.pdf"), "attachment; filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf".to_owned()),
            (Some("../../etc/passwd"), "attachment; filename=\"_.._etc_passwd\"; filename*=UTF-8''_.._etc_passwd".to_owned()),
            (Some("x\"; y=\"z"), "attachment; filename=\"x__ y__z\"; filename*=UTF-8''x%22%3B%20y%3D%22z".to_owned()),
            (Some("\u{e4}.png"), "attachment; filename=\"_.png\"; filename*=UTF-8''%C3%A4.png".to_owned()),
        ];
        for (name, expected) in table {
            assert_eq!(disposition(name, id), expected, "{name:?}");
        }
    }
}
