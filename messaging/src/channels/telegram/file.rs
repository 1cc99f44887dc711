//! Files: asked for by id, then had by the path that the answer names. A path is good for an hour at least.

use bytes::Bytes;
use serde_json::{Value, json};

use super::method_url;
use crate::channels::media::get;
use crate::channels::{ChannelSettings, FoundMedia, MediaFault};
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};

/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 512;

pub(super) fn where_is(found: &FoundMedia<'_>, account: &Account, settings: &ChannelSettings) -> Option<HttpRequest> {
    let id = found.media.id.as_deref().filter(|id| !id.is_empty())?;
    let headers = vec![(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"))];
    let body = Bytes::from(json!({ "file_id": id }).to_string());
    Some(HttpRequest { method: http::Method::POST, url: method_url(account, settings, "getFile"), headers, body })
}

pub(super) fn media_at(answer: &HttpResponse, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, MediaFault> {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    if said["ok"] != true {
        return Err(refused(answer.status, said["description"].as_str().unwrap_or_default()));
    }
    let path = said.pointer("/result/file_path").and_then(Value::as_str).ok_or(MediaFault::BadAnswer)?;
    if !is_plain(path) {
        return Err(MediaFault::BadAnswer);
    }
    Ok(get(format!("{}/file/bot{}/{path}", settings.base(account), account.secret("bot_token")), Vec::new()))
}

/// 400 says both "never" and "no more"; files above 20 MB are not given out to bots.
fn refused(status: u16, description: &str) -> MediaFault {
    match MediaFault::of_status(status) {
        Some(MediaFault::BadAnswer) if description.contains("too big") => MediaFault::TooLarge,
        Some(MediaFault::BadAnswer) if status == 400 => MediaFault::Gone,
        Some(fault) => fault,
        None => MediaFault::BadAnswer,
    }
}

/// A path below the bot's own files: it neither climbs nor ends the address. (A local Bot API server says paths of its own disk.)
fn is_plain(path: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    path.len() <= PATH_BYTES_MAX && path.bytes().all(letter) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
