//! The call for a send: method, path and body.
//!
//! Messages go to the channel as the bot's own, with a nonce; while the person's last interaction can be answered, they go through its
//! token, which also ends the "thinking" that our first answer began. Who is only known as a person gets a direct conversation opened
//! first (see `outcome`: the answer names it).

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::check::{BUTTONS_PER_ROW, is_id, refusal};
use super::{CHANNEL, USER, nonce};
use crate::channels::{Outgoing, Unsendable};
use crate::content::{Content, Interactive, List, Media, Reaction};
use crate::directory::Account;

/// What stays as it is in a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Flag of a message: links are shown without a preview.
const NO_PREVIEW: u64 = 1 << 2;
/// Types of components.
const ROW: u8 = 1;
const BUTTON: u8 = 2;
const LIST: u8 = 3;
/// Styles of buttons.
const PRESSED: u8 = 1;
const LEADS: u8 = 5;

/// A call of the API.
pub(super) struct Call {
    pub method: Method,
    /// Behind the version.
    pub path: String,
    /// With the bot's token; otherwise the path itself holds the credential.
    pub by_bot: bool,
    pub body: Option<Value>,
}

pub(super) fn call(send: &Outgoing<'_>, account: &Account) -> Result<Call, Unsendable> {
    if let Some(why) = refusal(send.content) {
        return Err(Unsendable(format!("{}: {why}", send.content.kind())));
    }
    if opens(send) {
        let body = json!({ "recipient_id": send.to.value() });
        return Ok(Call { method: Method::POST, path: "/users/@me/channels".to_owned(), by_bot: true, body: Some(body) });
    }
    if send.to.scheme() != CHANNEL || !is_id(send.to.value()) {
        return Err(Unsendable("the recipient is not a channel of discord".to_owned()));
    }
    let channel = send.to.value();
    match send.content {
        Content::Typing(_) => {
            Ok(Call { method: Method::POST, path: format!("/channels/{channel}/typing"), by_bot: true, body: Some(json!({})) })
        }
        Content::Reaction(reaction) => react(channel, reaction),
        content => message(send, account, content),
    }
}

/// Whether this call only opens the conversation; what is to be said follows.
pub(super) fn opens(send: &Outgoing<'_>) -> bool {
    send.to.scheme() == USER
}

/// The token that a send goes through, if it does.
pub(super) fn token<'a>(send: &Outgoing<'a>) -> Option<&'a str> {
    let takes = match send.content {
        Content::Text(_)
        | Content::Image(_)
        | Content::Video(_)
        | Content::Audio(_)
        | Content::Document(_)
        | Content::Interactive(_)
        | Content::Mixed(_) => true,
        // A sticker by its id has no place in a follow-up.
        Content::Sticker(media) => media.id.is_none(),
        Content::Reaction(_)
        | Content::Typing(_)
        | Content::Read(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::InteractiveReply(_)
        | Content::Template(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Unsupported(_) => false,
    };
    send.via.filter(|_| takes && !opens(send))
}

fn message(send: &Outgoing<'_>, account: &Account, content: &Content) -> Result<Call, Unsendable> {
    let mut body = parts(content)?;
    // Text from elsewhere calls nobody: neither everyone nor a role nor a person.
    body.insert("allowed_mentions".to_owned(), json!({ "parse": [] }));
    if let Some(token) = token(send) {
        let application = encoded(account.public("application_id"));
        let path = format!("/webhooks/{application}/{}", encoded(token));
        return Ok(Call { method: Method::POST, path, by_bot: false, body: Some(Value::Object(body)) });
    }
    if let Some(nonce) = nonce::of(send.message) {
        body.insert("nonce".to_owned(), nonce.into());
        body.insert("enforce_nonce".to_owned(), true.into());
    }
    // An interaction is no message: there is nothing to point at. Better without the link than not at all.
    if let Some(answered) = send.reply_to.filter(|id| is_id(id)) {
        body.insert("message_reference".to_owned(), json!({ "message_id": answered, "fail_if_not_exists": false }));
    }
    let path = format!("/channels/{}/messages", send.to.value());
    Ok(Call { method: Method::POST, path, by_bot: true, body: Some(Value::Object(body)) })
}

pub(super) fn encoded(part: &str) -> String {
    utf8_percent_encode(part, PART).to_string()
}

fn react(channel: &str, reaction: &Reaction) -> Result<Call, Unsendable> {
    let target = reaction.platform_id.as_deref().filter(|id| is_id(id));
    let target = target.ok_or_else(|| Unsendable("the message has no id with discord, or is an interaction".to_owned()))?;
    let emoji = reaction.emoji.as_deref().filter(|emoji| !emoji.is_empty());
    let emoji = emoji.ok_or_else(|| Unsendable("discord takes a reaction away only by its emoji".to_owned()))?;
    let path = format!("/channels/{channel}/messages/{target}/reactions/{}/@me", encoded(emoji));
    Ok(Call { method: Method::PUT, path, by_bot: true, body: None })
}

fn parts(content: &Content) -> Result<Map<String, Value>, Unsendable> {
    let parts = match content {
        Content::Text(text) if text.preview_url == Some(false) => json!({ "content": text.body, "flags": NO_PREVIEW }),
        Content::Text(text) => json!({ "content": text.body }),
        Content::Image(media) => pictures(media.caption.as_deref(), &[media])?,
        Content::Video(media) | Content::Audio(media) | Content::Document(media) => {
            json!({ "content": with_link(media.caption.as_deref(), link(media)?) })
        }
        Content::Sticker(media) => match &media.id {
            Some(id) => json!({ "sticker_ids": [id] }),
            None => pictures(None, &[media])?,
        },
        Content::Interactive(interactive) => {
            let components = match &interactive.list {
                Some(list) => lists(list),
                None => buttons(interactive),
            };
            json!({ "content": interactive_text(interactive), "components": components })
        }
        Content::Mixed(several) => mixed(several)?,
        other => return Err(Unsendable(format!("{} cannot be sent with discord", other.kind()))),
    };
    match parts {
        Value::Object(parts) => Ok(parts),
        _ => Err(Unsendable("the message is no object".to_owned())),
    }
}

fn link(media: &Media) -> Result<&str, Unsendable> {
    media.link.as_deref().ok_or_else(|| Unsendable("discord takes media by link only".to_owned()))
}

/// Pictures are embeds: Discord fetches them and shows them itself.
fn pictures(text: Option<&str>, media: &[&Media]) -> Result<Value, Unsendable> {
    let mut embeds = Vec::with_capacity(media.len());
    for one in media {
        embeds.push(json!({ "image": { "url": link(one)? } }));
    }
    let mut parts = json!({ "embeds": embeds });
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        parts["content"] = text.into();
    }
    Ok(parts)
}

fn mixed(several: &[Content]) -> Result<Value, Unsendable> {
    let (mut text, mut media) = (None, Vec::new());
    for part in several {
        match part {
            Content::Text(part) if text.is_none() => text = Some(part.body.as_str()),
            Content::Image(picture) => media.push(picture),
            _ => return Err(Unsendable("one message of discord holds one text and pictures".to_owned())),
        }
    }
    pictures(text, &media)
}

/// The text beside a medium, and the link to it.
pub(super) fn with_link(caption: Option<&str>, link: &str) -> String {
    match caption.filter(|caption| !caption.is_empty()) {
        Some(caption) => format!("{caption}\n{link}"),
        None => link.to_owned(),
    }
}

/// Header, body and footer as one text.
pub(super) fn interactive_text(interactive: &Interactive) -> String {
    let parts = [interactive.header.as_deref(), Some(interactive.body.as_str()), interactive.footer.as_deref()];
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

fn row(components: Vec<Value>) -> Value {
    json!({ "type": ROW, "components": components })
}

fn buttons(interactive: &Interactive) -> Vec<Value> {
    let mut rows = Vec::new();
    for some in interactive.buttons.chunks(BUTTONS_PER_ROW) {
        let mut shown = Vec::with_capacity(some.len());
        for button in some {
            shown.push(match &button.url {
                Some(url) => json!({ "type": BUTTON, "style": LEADS, "label": button.title, "url": url }),
                None => json!({ "type": BUTTON, "style": PRESSED, "label": button.title, "custom_id": button.id }),
            });
        }
        rows.push(row(shown));
    }
    rows
}

/// One list a section: Discord has no titles inside a list, but each shows a text until something is chosen.
fn lists(list: &List) -> Vec<Value> {
    let mut rows = Vec::new();
    for (i, section) in list.sections.iter().enumerate() {
        let mut options = Vec::with_capacity(section.rows.len());
        for choice in &section.rows {
            let mut option = json!({ "label": choice.title, "value": choice.id });
            if let Some(description) = &choice.description {
                option["description"] = description.as_str().into();
            }
            options.push(option);
        }
        let placeholder = section.title.as_deref().unwrap_or(&list.button);
        rows.push(row(vec![json!({ "type": LIST, "custom_id": format!("list:{i}"), "placeholder": placeholder, "options": options })]));
    }
    rows
}
