//! Calls to the platform.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::check::is_button_template;
use super::{COMMENT, Product};
use crate::channels::{ChannelSettings, Outgoing, Unsendable};
use crate::content::{Content, Interactive, Media, Reaction, Template};
use crate::directory::Account;
use crate::exchange::HttpRequest;

pub(in crate::channels) fn request(
    product: &Product,
    send: &Outgoing<'_>,
    account: &Account,
    settings: &ChannelSettings,
) -> Result<HttpRequest, Unsendable> {
    let id = account.public(product.identity);
    if id.is_empty() {
        return Err(Unsendable(format!("the account has no {}", product.identity)));
    }
    let authorization = bearer(account).ok_or_else(|| Unsendable("the access token cannot stand in a header".into()))?;
    let body = body(product, send)?;
    Ok(HttpRequest {
        method: http::Method::POST,
        url: format!("{}/{}/{id}/messages", settings.base(account), settings.api_version),
        headers: vec![authorization, (CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body: Bytes::from(Value::Object(body).to_string()),
    })
}

pub(in crate::channels) fn probe(product: &Product, account: &Account, settings: &ChannelSettings) -> HttpRequest {
    let (id, fields) = (account.public(product.identity), product.probe_fields);
    HttpRequest {
        method: http::Method::GET,
        url: format!("{}/{}/{id}?fields={fields}", settings.base(account), settings.api_version),
        // A token that cannot stand in a header is left out: the platform then says that the credential does not work.
        headers: bearer(account).into_iter().collect(),
        body: Bytes::new(),
    }
}

fn bearer(account: &Account) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", account.secret("access_token"))).ok()?;
    value.set_sensitive(true);
    Some((AUTHORIZATION, value))
}

fn body(product: &Product, send: &Outgoing<'_>) -> Result<Map<String, Value>, Unsendable> {
    let mut body = Map::new();
    let recipient = if send.to.scheme() == COMMENT { "comment_id" } else { "id" };
    if send.to.scheme() != COMMENT && send.to.scheme() != product.scheme {
        return Err(Unsendable(format!("{} cannot write to a {}", product.name, send.to.scheme())));
    }
    body.insert("recipient".into(), json!({ recipient: send.to.value() }));
    if let Some(action) = action(product, send.content)? {
        body.extend(action);
        return Ok(body);
    }
    let mut message = message(product, send.content)?;
    if product.has_metadata {
        // Comes back with the echo: this is how a send of unknown fate is settled.
        message.insert("metadata".into(), send.message.into());
    }
    let kind = match (send.tag, send.content) {
        (_, Content::Template(_)) => Some("UTILITY"),
        (Some(tag), _) => {
            body.insert("tag".into(), tag_name(tag).ok_or_else(|| Unsendable("the tag is not known".into()))?.into());
            Some("MESSAGE_TAG")
        }
        (None, _) => product.says_type.then_some("RESPONSE"),
    };
    if let Some(kind) = kind {
        body.insert("messaging_type".into(), kind.into());
    }
    body.insert("message".into(), Value::Object(message));
    if let Some(mid) = send.reply_to {
        body.insert("reply_to".into(), json!({ "mid": mid }));
    }
    Ok(body)
}

fn tag_name(tag: &str) -> Option<&'static str> {
    (tag == "human_agent").then_some("HUMAN_AGENT")
}

/// What is no message but something done in the thread.
fn action(product: &Product, content: &Content) -> Result<Option<Map<String, Value>>, Unsendable> {
    let action = match content {
        Content::Read(_) => json!({"sender_action": "mark_seen"}),
        Content::Typing(_) => json!({"sender_action": "typing_on"}),
        Content::Reaction(reaction) => self::reaction(product, reaction)?,
        _ => return Ok(None),
    };
    let Value::Object(action) = action else { return Ok(None) };
    Ok(Some(action))
}

fn reaction(product: &Product, reaction: &Reaction) -> Result<Value, Unsendable> {
    let target = reaction.platform_id.as_deref().ok_or_else(|| Unsendable("the message to react to is not known".into()))?;
    let emoji = reaction.emoji.as_deref().filter(|emoji| !emoji.is_empty());
    Ok(match emoji {
        Some(emoji) => {
            json!({"sender_action": "react", "payload": {"message_id": target, "reaction": product.only_reaction.unwrap_or(emoji)}})
        }
        None => json!({"sender_action": "unreact", "payload": {"message_id": target}}),
    })
}

fn message(product: &Product, content: &Content) -> Result<Map<String, Value>, Unsendable> {
    let message = match content {
        Content::Text(text) => json!({ "text": text.body }),
        Content::Image(media) => json!({ "attachment": attachment("image", media)? }),
        Content::Video(media) => json!({ "attachment": attachment("video", media)? }),
        Content::Audio(media) => json!({ "attachment": attachment("audio", media)? }),
        Content::Document(media) => json!({ "attachment": attachment("file", media)? }),
        Content::Sticker(_) if product.has_heart => json!({"attachment": {"type": super::check::HEART}}),
        Content::Interactive(things) => interactive(things),
        Content::Mixed(parts) if product.pictures_max > 1 => json!({ "attachments": pictures(parts)? }),
        Content::Template(template) if product.has_templates => json!({ "template": self::template(template) }),
        Content::Sticker(_)
        | Content::Mixed(_)
        | Content::Template(_)
        | Content::Reaction(_)
        | Content::Read(_)
        | Content::Typing(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Unsupported(_) => return Err(Unsendable(format!("{} cannot send {}", product.name, content.kind()))),
    };
    match message {
        Value::Object(message) => Ok(message),
        _ => Err(Unsendable("no message".into())),
    }
}

fn attachment(kind: &str, media: &Media) -> Result<Value, Unsendable> {
    let payload = match (&media.id, &media.link) {
        (Some(id), _) => json!({ "attachment_id": id }),
        (None, Some(link)) => json!({ "url": link }),
        (None, None) => return Err(Unsendable("the medium has neither id nor link".into())),
    };
    Ok(json!({ "type": kind, "payload": payload }))
}

fn pictures(parts: &[Content]) -> Result<Vec<Value>, Unsendable> {
    let mut pictures = Vec::with_capacity(parts.len());
    for part in parts {
        let Content::Image(media) = part else { return Err(Unsendable("only pictures go together".into())) };
        pictures.push(attachment("image", media)?);
    }
    Ok(pictures)
}

fn interactive(things: &Interactive) -> Value {
    if !is_button_template(things) {
        let replies: Vec<Value> =
            things.buttons.iter().map(|button| json!({"content_type": "text", "title": button.title, "payload": button.id})).collect();
        return json!({ "text": things.body, "quick_replies": replies });
    }
    let buttons: Vec<Value> = things
        .buttons
        .iter()
        .map(|button| match &button.url {
            Some(url) => json!({"type": "web_url", "url": url, "title": button.title}),
            None => json!({"type": "postback", "title": button.title, "payload": button.id}),
        })
        .collect();
    let payload = json!({"template_type": "button", "text": things.body, "buttons": buttons});
    json!({"attachment": {"type": "template", "payload": payload}})
}

fn template(template: &Template) -> Value {
    let mut out = json!({"name": template.name, "language": {"code": template.language}});
    if let Some(components) = &template.components {
        out["components"] = components.clone();
    } else if !template.params.is_empty() {
        let parameters: Vec<Value> = template.params.iter().map(|text| json!({"type": "text", "text": text})).collect();
        out["components"] = json!([{"type": "BODY", "parameters": parameters}]);
    }
    out
}
