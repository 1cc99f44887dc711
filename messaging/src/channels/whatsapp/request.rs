//! Calls to the platform.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::channels::media::{answered, get, plain_id};
use crate::channels::{ChannelSettings, FoundMedia, MediaFault, Outgoing, Unsendable};
use crate::content::{Content, Handle, Interactive, Location, Media, Reaction, Receipt, Template};
use crate::directory::Account;
use crate::exchange::{HttpRequest, HttpResponse};

/// What a healthy account can tell of itself.
const PROBE_FIELDS: &str = "verified_name,quality_rating,code_verification_status,status,platform_type,throughput";

pub(super) fn request(send: &Outgoing<'_>, account: &Account, settings: &ChannelSettings) -> Result<HttpRequest, Unsendable> {
    let number = account.public("phone_number_id");
    if number.is_empty() {
        return Err(Unsendable("the account has no phone_number_id".into()));
    }
    let authorization = bearer(account).ok_or_else(|| Unsendable("the access token cannot stand in a header".into()))?;
    let body = body(send)?;
    Ok(HttpRequest {
        method: http::Method::POST,
        url: format!("{}/{}/{number}/messages", settings.base(account), settings.api_version),
        headers: vec![authorization, (CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body: Bytes::from(serde_json::to_vec(&body).expect("JSON values serialise")),
    })
}

pub(super) fn probe(account: &Account, settings: &ChannelSettings) -> HttpRequest {
    let number = account.public("phone_number_id");
    HttpRequest {
        method: http::Method::GET,
        url: format!("{}/{}/{number}?fields={PROBE_FIELDS}", settings.base(account), settings.api_version),
        // A token that cannot stand in a header is left out: the platform then says that the credential does not work.
        headers: bearer(account).into_iter().collect(),
        body: Bytes::new(),
    }
}

/// Asks where a medium's bytes are: the answer's link is good for five minutes. Ids that came with a message are good for seven days.
pub(super) fn where_is(found: &FoundMedia<'_>, account: &Account, settings: &ChannelSettings) -> Option<HttpRequest> {
    let id = plain_id(found)?;
    let number = account.public("phone_number_id");
    let url = format!("{}/{}/{id}?phone_number_id={number}", settings.base(account), settings.api_version);
    Some(get(url, vec![bearer(account)?]))
}

/// The link wants the token as well.
pub(super) fn media_at(answer: &HttpResponse, account: &Account) -> Result<HttpRequest, MediaFault> {
    // An id that is too old or of another number is an error of the request to this platform.
    let answer = answered(answer).map_err(|fault| if answer.status == 400 { MediaFault::Gone } else { fault })?;
    let url = answer.get("url").and_then(Value::as_str).ok_or(MediaFault::BadAnswer)?;
    let token = bearer(account).ok_or(MediaFault::CredentialRefused)?;
    Ok(get(url.to_owned(), vec![token]))
}

fn bearer(account: &Account) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", account.secret("access_token"))).ok()?;
    value.set_sensitive(true);
    Some((AUTHORIZATION, value))
}

fn body(send: &Outgoing<'_>) -> Result<Map<String, Value>, Unsendable> {
    let (kind, part) = match send.content {
        Content::Read(receipt) => return read(receipt, false),
        Content::Typing(receipt) => return read(receipt, true),
        Content::Text(text) => {
            let mut part = Map::from_iter([("body".to_owned(), Value::from(text.body.as_str()))]);
            put(&mut part, "preview_url", text.preview_url);
            ("text", Value::Object(part))
        }
        Content::Image(media) => ("image", self::media(media)),
        Content::Video(media) => ("video", self::media(media)),
        Content::Audio(media) => ("audio", self::media(media)),
        Content::Document(media) => ("document", self::media(media)),
        Content::Sticker(media) => ("sticker", self::media(media)),
        Content::Location(place) => ("location", location(place)),
        Content::Contacts(cards) => ("contacts", Value::Array(cards.clone())),
        Content::Interactive(things) => ("interactive", interactive(things)),
        Content::Template(template) => ("template", self::template(template)),
        Content::Reaction(reaction) => ("reaction", self::reaction(reaction)?),
        Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => {
            return Err(Unsendable(format!("whatsapp cannot send {}", send.content.kind())));
        }
    };
    let mut body = Map::new();
    body.insert("messaging_product".into(), "whatsapp".into());
    address(send.to, &mut body)?;
    body.insert("type".into(), kind.into());
    body.insert(kind.into(), part);
    if let Some(id) = send.reply_to.filter(|_| send.content.is_message()) {
        body.insert("context".into(), json!({"message_id": id}));
    }
    // Comes back with every status: this is how a send of unknown fate is settled.
    body.insert("biz_opaque_callback_data".into(), send.message.into());
    Ok(body)
}

fn address(to: &Handle, body: &mut Map<String, Value>) -> Result<(), Unsendable> {
    let (kind, member, value) = match to.scheme() {
        // Without the plus sign the business's own country code would be put in front.
        "phone" => ("individual", "to", format!("+{}", to.value())),
        "bsuid" => ("individual", "recipient", to.value().to_owned()),
        "group" => ("group", "to", to.value().to_owned()),
        scheme => return Err(Unsendable(format!("whatsapp cannot write to a {scheme}"))),
    };
    body.insert("recipient_type".into(), kind.into());
    body.insert(member.into(), value.into());
    Ok(())
}

fn read(receipt: &Receipt, typing: bool) -> Result<Map<String, Value>, Unsendable> {
    let id = receipt.platform_id.as_deref().ok_or_else(|| Unsendable("there is no message to mark as read".into()))?;
    let mut body = Map::new();
    body.insert("messaging_product".into(), "whatsapp".into());
    body.insert("status".into(), "read".into());
    body.insert("message_id".into(), id.into());
    if typing {
        body.insert("typing_indicator".into(), json!({"type": "text"}));
    }
    Ok(body)
}

fn put(out: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        out.insert(name.into(), value.into());
    }
}

fn media(media: &Media) -> Value {
    let mut out = Map::new();
    put(&mut out, "id", media.id.as_deref());
    put(&mut out, "link", media.link.as_deref());
    put(&mut out, "caption", media.caption.as_deref().filter(|caption| !caption.is_empty()));
    put(&mut out, "filename", media.filename.as_deref());
    put(&mut out, "voice", media.voice);
    Value::Object(out)
}

fn location(place: &Location) -> Value {
    let mut out = Map::new();
    out.insert("latitude".into(), place.latitude.into());
    out.insert("longitude".into(), place.longitude.into());
    put(&mut out, "name", place.name.as_deref());
    put(&mut out, "address", place.address.as_deref());
    Value::Object(out)
}

fn reaction(reaction: &Reaction) -> Result<Value, Unsendable> {
    let id = reaction.platform_id.as_deref().ok_or_else(|| Unsendable("the message to react to has no platform id".into()))?;
    Ok(json!({"message_id": id, "emoji": reaction.emoji.as_deref().unwrap_or_default()}))
}

fn interactive(things: &Interactive) -> Value {
    let (kind, action) = action(things);
    let mut out = Map::new();
    out.insert("type".into(), kind.into());
    put(&mut out, "header", things.header.as_deref().map(|text| json!({"type": "text", "text": text})));
    out.insert("body".into(), json!({"text": things.body}));
    put(&mut out, "footer", things.footer.as_deref().map(|text| json!({"text": text})));
    out.insert("action".into(), action);
    Value::Object(out)
}

fn action(things: &Interactive) -> (&'static str, Value) {
    if let Some(list) = &things.list {
        return ("list", json!({"button": list.button, "sections": list.sections}));
    }
    if let [button] = &things.buttons[..]
        && let Some(url) = &button.url
    {
        return ("cta_url", json!({"name": "cta_url", "parameters": {"display_text": button.title, "url": url}}));
    }
    let buttons: Vec<Value> =
        things.buttons.iter().map(|button| json!({"type": "reply", "reply": {"id": button.id, "title": button.title}})).collect();
    ("button", json!({ "buttons": buttons }))
}

fn template(template: &Template) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), template.name.as_str().into());
    out.insert("language".into(), json!({"code": template.language}));
    if let Some(components) = &template.components {
        out.insert("components".into(), components.clone());
    } else if !template.params.is_empty() {
        let parameters: Vec<Value> = template.params.iter().map(|text| json!({"type": "text", "text": text})).collect();
        out.insert("components".into(), json!([{"type": "body", "parameters": parameters}]));
    }
    Value::Object(out)
}
