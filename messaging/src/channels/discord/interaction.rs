//! Interactions: commands, buttons, selections, forms, and the suggestions that are asked for while a person types.
//!
//! Each brings a token with which the person can be answered for 15 minutes, even where the bot cannot write to the channel.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::news::names;
use super::parse::inbound;
use super::receive::kinds;
use super::wire::{Object, array, count, malformed, object, owned, text, time_of};
use super::{USER, message};
use crate::channels::{Inbound, InboundBody, Malformed};
use crate::content::{Content, Handle, InteractiveReply, Text};

/// How long a token can be used.
const TOKEN_FOR: Duration = Duration::from_secs(15 * 60);
/// `context` of an interaction in a direct conversation with the bot.
const WITH_BOT: u64 = 1;
/// Options of a command inside options (groups and sub-commands): Discord has two levels, and values below.
const LEVELS_MAX: usize = 4;
/// Rows inside rows of a message's or form's components.
const ROWS_MAX: usize = 4;
/// Longest text that a command is told as, in characters; all of it stands in the context.
const COMMAND_CHARS_MAX: usize = 8_000;

pub(super) fn parse(kind: u64, mut members: Object, handle: Handle) -> Result<Inbound, Malformed> {
    let id = owned(&members, "id").ok_or_else(|| malformed("an interaction without id"))?;
    let token = owned(&members, "token");
    // Whoever has it speaks for the bot.
    members.remove("token");
    let body = match kind {
        kinds::COMMAND => said(command(&members), None),
        kinds::COMPONENT => said(component(&members), pressed_message(&members)),
        kinds::MODAL => said(form(&members), pressed_message(&members)),
        kinds::AUTOCOMPLETE => InboundBody::Platform { kind: "autocomplete".to_owned(), raw: Value::Object(members.clone()) },
        other => InboundBody::Platform { kind: format!("interaction {other}"), raw: Value::Object(members.clone()) },
    };
    let is_message = matches!(body, InboundBody::Message { .. });
    let mut inbound = inbound(handle, format!("interaction:{id}"), time_of(&id), body);
    inbound.opens_window = is_message;
    inbound.context = context(kind, &members);
    if let Some(token) = token.filter(|_| is_message) {
        inbound.contact.via = Some(token);
        inbound.contact.via_for = Some(TOKEN_FOR);
    }
    let Some(user) = user(&members) else { return Ok(inbound) };
    if is_direct(&members) {
        (inbound.contact.name, inbound.contact.username) = names(user);
        let person = owned(user, "id").map(|id| Handle::new(USER, &id));
        inbound.contact.handles.extend(person.filter(|person| !inbound.contact.handles.contains(person)));
    } else {
        inbound.context.insert("from".to_owned(), message::person(user));
    }
    Ok(inbound)
}

fn said(content: Content, reply_to: Option<String>) -> InboundBody {
    InboundBody::Message { content, reply_to }
}

/// The person: at the top in direct conversations, in `member` in guilds.
fn user(members: &Object) -> Option<&Object> {
    object(members, "user").or_else(|| object(members, "member").and_then(|member| object(member, "user")))
}

/// Whether the channel is the person's own with the bot. In other private channels only the token reaches.
fn is_direct(members: &Object) -> bool {
    match count(members, "context") {
        Some(context) => context == WITH_BOT,
        None => object(members, "channel").and_then(|channel| count(channel, "type")) == Some(message::DIRECT),
    }
}

/// A command as the person sees it: `/order number: 1001`.
fn command(members: &Object) -> Content {
    let data = object(members, "data");
    let name = data.and_then(|data| text(data, "name")).unwrap_or("?");
    let mut body = format!("/{name}");
    if let Some(data) = data {
        write_options(&mut body, array(data, "options"), LEVELS_MAX);
    }
    if let Some((end, _)) = body.char_indices().nth(COMMAND_CHARS_MAX) {
        body.truncate(end);
    }
    Content::Text(Text { body, preview_url: None })
}

fn write_options(into: &mut String, options: &[Value], levels: usize) {
    for option in options.iter().filter_map(Value::as_object) {
        let Some(name) = text(option, "name") else { continue };
        into.push(' ');
        into.push_str(name);
        match option.get("value") {
            Some(Value::String(value)) => {
                into.push_str(": ");
                into.push_str(value);
            }
            Some(value) => {
                into.push_str(": ");
                into.push_str(&value.to_string());
            }
            None if levels > 0 => write_options(into, array(option, "options"), levels - 1),
            None => {}
        }
    }
}

/// A button that was pressed, or what was chosen from a list.
fn component(members: &Object) -> Content {
    let data = object(members, "data");
    let id = data.and_then(|data| owned(data, "custom_id"));
    let values: Vec<&str> = data.map_or(&[][..], |data| array(data, "values")).iter().filter_map(Value::as_str).collect();
    let shown = object(members, "message").map_or(&[][..], |message| array(message, "components"));
    let is_button = data.and_then(|data| count(data, "component_type")) == Some(message::BUTTON);
    let found = id.as_deref().and_then(|id| find(shown, id, ROWS_MAX));
    let reply = if is_button {
        InteractiveReply {
            kind: "button".into(),
            id,
            title: found.and_then(|button| owned(button, "label")),
            description: None,
            data: None,
        }
    } else {
        let option = found.zip(values.first()).and_then(|(list, value)| option(list, value));
        let title = option.and_then(|option| owned(option, "label"));
        let description = option.and_then(|option| owned(option, "description"));
        let data = Some(json!({ "custom_id": id, "values": values }));
        InteractiveReply { kind: "list".into(), id: values.first().map(|value| (*value).to_owned()), title, description, data }
    };
    Content::InteractiveReply(reply)
}

/// The component with this id.
fn find<'a>(components: &'a [Value], id: &str, rows: usize) -> Option<&'a Object> {
    for component in components.iter().filter_map(Value::as_object) {
        if text(component, "custom_id") == Some(id) {
            return Some(component);
        }
        if rows > 0
            && let Some(found) = find(array(component, "components"), id, rows - 1)
        {
            return Some(found);
        }
    }
    None
}

fn option<'a>(list: &'a Object, value: &str) -> Option<&'a Object> {
    array(list, "options").iter().filter_map(Value::as_object).find(|option| text(option, "value") == Some(value))
}

/// A form that was filled in: its fields by their ids.
fn form(members: &Object) -> Content {
    let data = object(members, "data");
    let mut fields = Map::new();
    if let Some(data) = data {
        collect(array(data, "components"), &mut fields, ROWS_MAX);
    }
    let id = data.and_then(|data| owned(data, "custom_id"));
    let data = Some(Value::Object(fields));
    Content::InteractiveReply(InteractiveReply { kind: "form".into(), id, title: None, description: None, data })
}

/// Inputs stand in a label each (`component`); in older forms in rows (`components`).
fn collect(components: &[Value], fields: &mut Object, rows: usize) {
    for component in components.iter().filter_map(Value::as_object) {
        let value = component.get("value").or_else(|| component.get("values"));
        if let (Some(id), Some(value)) = (text(component, "custom_id"), value) {
            fields.insert(id.to_owned(), value.clone());
        }
        if rows > 0 {
            collect(array(component, "components"), fields, rows - 1);
            if let Some(inner) = component.get("component") {
                collect(std::slice::from_ref(inner), fields, rows - 1);
            }
        }
    }
}

/// The message whose button or list it was.
fn pressed_message(members: &Object) -> Option<String> {
    object(members, "message").and_then(|message| owned(message, "id"))
}

fn context(kind: u64, members: &Object) -> Map<String, Value> {
    let mut context = Map::new();
    for name in ["guild_id", "locale"] {
        if let Some(value) = text(members, name) {
            context.insert(name.to_owned(), value.into());
        }
    }
    if kind == kinds::COMMAND
        && let Some(data) = members.get("data")
    {
        context.insert("command".to_owned(), data.clone());
    }
    context
}
