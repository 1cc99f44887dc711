//! Calls to the platform.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::check::BUTTON_LABEL_CHARS_MAX;
use super::outcome::Answer;
use super::{COMMENT, CONVERSATION};
use crate::channels::media::get;
use crate::channels::{ChannelSettings, FoundMedia, MediaFault, Outgoing, Unsendable};
use crate::content::{Content, Handle, Interactive, Media};
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};

/// Not `Authorization`, and without `Bearer`.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("access-token");
/// Where the token stands when media are fetched.
const USER_HEADER: HeaderName = HeaderName::from_static("x-user");

/// The address of a method. The slash at its end is part of it.
pub(super) fn url(account: &Account, settings: &ChannelSettings, method: &str) -> String {
    format!("{}/open_api/v1.3/{method}/", settings.base(account))
}

/// A call with a JSON body.
pub(super) fn post(url: String, token: Option<(HeaderName, HeaderValue)>, body: &Value) -> HttpRequest {
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    headers.extend(token);
    HttpRequest { method: http::Method::POST, url, headers, body: Bytes::from(body.to_string()) }
}

pub(super) fn request(send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
    let token = access_token(account).ok_or_else(|| Unsendable("the access token cannot stand in a header".into()))?;
    let mut body = Map::new();
    body.insert("business_id".into(), account.public("business_id").into());
    address(send.to, &mut body)?;
    say(send, &mut body)?;
    Ok(post(url(account, settings, "business/message/send"), Some(token), &Value::Object(body)))
}

/// What the platform says of the token: the one method that takes it in the body.
pub(super) fn probe(account: &Account, settings: &ChannelSettings) -> HttpRequest {
    let body = json!({"app_id": account.public("client_key"), "access_token": account.secret("access_token")});
    post(url(account, settings, "tt_user/token_info/get"), None, &body)
}

/// Asks where a picture or film is: the answer's link is good for a day.
pub(super) fn where_is(found: &FoundMedia<'_>, account: &Account, settings: &ChannelSettings) -> Option<HttpRequest> {
    let kind = match found.kind {
        "image" => "IMAGE",
        "video" => "VIDEO",
        _ => return None,
    };
    let id = found.media.id.as_deref().filter(|id| !id.is_empty())?;
    let body = json!({
        "business_id": account.public("business_id"), "conversation_id": found.from.value(), "message_id": found.message,
        "media_id": id, "media_type": kind,
    });
    Some(post(url(account, settings, "business/message/media/download"), Some(access_token(account)?), &body))
}

/// The link wants the token too, under a name of its own.
pub(super) fn media_at(answer: &HttpResponse, account: &Account) -> Result<HttpRequest, MediaFault> {
    if let Some(fault) = MediaFault::of_status(answer.status) {
        return Err(fault);
    }
    let said = Answer::read(answer).ok_or(MediaFault::BadAnswer)?;
    match said.code {
        0 => {}
        40_102 | 40_104 | 40_105 => return Err(MediaFault::CredentialRefused),
        40_016 | 40_100 | 40_133 | 50_000.. => return Err(MediaFault::Unavailable),
        _ => return Err(MediaFault::Gone),
    }
    let link = said.data.get("download_url").and_then(Value::as_str).ok_or(MediaFault::BadAnswer)?;
    let (_, token) = access_token(account).ok_or(MediaFault::CredentialRefused)?;
    Ok(get(link.to_owned(), vec![(USER_HEADER, token)]))
}

fn access_token(account: &Account) -> Option<(HeaderName, HeaderValue)> {
    let token = account.secret("access_token");
    let mut value = HeaderValue::from_str(token).ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some((TOKEN_HEADER, value))
}

fn address(to: &Handle, body: &mut Map<String, Value>) -> Result<(), Unsendable> {
    match to.scheme() {
        CONVERSATION => {
            body.insert("recipient_type".into(), "CONVERSATION".into());
            body.insert("recipient".into(), to.value().into());
        }
        COMMENT => {
            body.insert("direct_reply".into(), json!({"reply_type": "COMMENT_REPLY", "comment_reply": {"comment_id": to.value()}}));
        }
        scheme => return Err(Unsendable(format!("tiktok cannot write to a {scheme}"))),
    }
    Ok(())
}

fn say(send: &Outgoing<'_>, body: &mut Map<String, Value>) -> Result<(), Unsendable> {
    let (kind, member, part) = match send.content {
        Content::Text(text) => ("TEXT", "text", json!({"body": text.body})),
        Content::Image(media) => ("IMAGE", "image", json!({"media_id": id_of(media)?})),
        Content::Video(media) => ("SHARE_POST", "share_post", json!({"item_id": id_of(media)?})),
        Content::Interactive(things) => ("TEMPLATE", "template", card(things)),
        Content::Read(_) => ("SENDER_ACTION", "sender_action", "MARK_READ".into()),
        Content::Typing(_) => ("SENDER_ACTION", "sender_action", "TYPING".into()),
        Content::Audio(_)
        | Content::Document(_)
        | Content::Sticker(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::Template(_)
        | Content::Reaction(_)
        | Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => return Err(Unsendable(format!("tiktok cannot send {}", send.content.kind()))),
    };
    if send.to.scheme() == COMMENT && kind != "TEXT" {
        return Err(Unsendable("a comment is answered by text only".into()));
    }
    body.insert("message_type".into(), kind.into());
    body.insert(member.into(), part);
    // Only a text may quote; anything else goes without.
    if let Some(quoted) = send.reply_to.filter(|_| kind == "TEXT" && send.to.scheme() == CONVERSATION) {
        body.insert("referenced_message_info".into(), json!({"referenced_message_id": quoted}));
    }
    Ok(())
}

fn id_of(media: &Media) -> Result<&str, Unsendable> {
    media.id.as_deref().filter(|id| !id.is_empty()).ok_or_else(|| Unsendable("the medium has no platform id".into()))
}

/// A card: flat here, though it is told back nested. Long labels need the card that shows them as links.
fn card(things: &Interactive) -> Value {
    let fits = things.buttons.iter().all(|button| button.title.chars().count() <= BUTTON_LABEL_CHARS_MAX);
    let kind = if fits { "QA_BUTTON_CARD" } else { "QA_LINK_CARD" };
    let button = |button: &crate::content::Button| json!({"type": "REPLY", "title": button.title, "id": button.id});
    let buttons: Vec<Value> = things.buttons.iter().map(button).collect();
    json!({"type": kind, "title": things.body, "buttons": buttons})
}
