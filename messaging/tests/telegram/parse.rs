//! What updates say: every fixture, and the corners that the fixtures leave out.

use bytes::Bytes;
use messaging::channels::{Inbound, InboundBody};
use messaging::content::Content;
use serde_json::{Value, json};

use super::{fixture, fixture_names, telegram};

/// One line that says everything: id, body, `opens` when the window opens, contact, context.
fn summary(inbound: &Inbound) -> String {
    let optional = |text: &Option<String>| text.as_ref().map_or_else(|| "-".to_owned(), String::clone);
    let body = match &inbound.body {
        InboundBody::Message { content, reply_to } => format!("message {} re {}", content_line(content), optional(reply_to)),
        InboundBody::Echo { content, reply_to } => format!("echo {} re {}", content_line(content), optional(reply_to)),
        InboundBody::Reaction { target, emoji } => format!("reaction {} on {target}", optional(emoji)),
        InboundBody::Edit { target, content } => format!("edit of {target}: {}", content_line(content)),
        InboundBody::Delete { targets } => format!("delete {}", targets.join(" ")),
        InboundBody::Rekeyed { handles } => {
            format!("rekeyed {}", handles.iter().map(|handle| handle.expose()).collect::<Vec<_>>().join(" "))
        }
        InboundBody::Reachable(reachable) => format!("reachable {reachable}"),
        InboundBody::Platform { kind, raw } => format!("platform {kind} {}", keys(raw)),
        InboundBody::Status(_) | InboundBody::Preference { .. } | InboundBody::Account { .. } => "telegram has none".to_owned(),
    };
    let handles: Vec<&str> = inbound.contact.handles.iter().map(|handle| handle.expose()).collect();
    let contact = &inbound.contact;
    let who = format!("{} {} @{} via {}", handles.join(" "), optional(&contact.name), optional(&contact.username), optional(&contact.via));
    let opens = if inbound.opens_window { " opens" } else { "" };
    let context = Value::Object(inbound.context.clone());
    format!("{} [{}] {}{opens} | {body} | {who} | {context}", inbound.platform_id, inbound.qualifier, inbound.at.as_secs())
}

fn content_line(content: &Content) -> String {
    format!("{{{}}}", content.members())
}

fn keys(raw: &Value) -> String {
    raw.as_object().map_or_else(|| raw.to_string(), |object| object.keys().cloned().collect::<Vec<_>>().join(","))
}

fn parse(body: &Value) -> Inbound {
    telegram().parse(body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn every_fixture() {
    for name in fixture_names() {
        println!("        (\"{name}\", r#\"{}\"#),", summary(&telegram().parse(&fixture(&name)).unwrap()));
    }
}
