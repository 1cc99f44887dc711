//! The platforms' limits. All faults are told, not just the first.

use std::collections::HashSet;

use super::{COMMENT, Product, TextLimit};
use crate::channels::{Fault, check_chars};
use crate::content::{Content, Handle, Interactive, Media, Reaction, Template};

/// Text above the buttons of a button template.
const BUTTON_TEXT_CHARS_MAX: usize = 640;
/// Buttons of a button template; more become quick replies.
pub(super) const BUTTONS_MAX: usize = 3;
/// Quick replies.
const QUICK_REPLIES_MAX: usize = 13;
const TITLE_CHARS_MAX: usize = 20;
const PAYLOAD_CHARS_MAX: usize = 1000;
/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 25 * 1024 * 1024;
/// Largest picture by link, in bytes.
const PICTURE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The heart among stickers.
pub(super) const HEART: &str = "like_heart";

pub(in crate::channels) fn check(product: &Product, content: &Content, to: &Handle) -> Vec<Fault> {
    let mut faults = Vec::new();
    if to.scheme() != product.scheme && to.scheme() != COMMENT {
        faults.push(Fault::new("/to", format!("must be a {} or comment_id", product.scheme)));
    }
    if to.scheme() == COMMENT && !content.is_message() {
        faults.push(Fault::new("/type", format!("{} goes to a person and not to a comment", content.kind())));
    }
    match content {
        Content::Text(text) => check_text(product, &mut faults, "/text/body", &text.body),
        Content::Image(media) => check_media(&mut faults, "/image", media, PICTURE_BYTES_MAX),
        Content::Video(media) => check_media(&mut faults, "/video", media, FILE_BYTES_MAX),
        Content::Audio(media) => check_media(&mut faults, "/audio", media, FILE_BYTES_MAX),
        Content::Document(media) => check_media(&mut faults, "/document", media, FILE_BYTES_MAX),
        Content::Sticker(media) if product.has_heart => {
            if media.id.as_deref() != Some(HEART) || media.link.is_some() {
                faults.push(Fault::new("/sticker/id", format!("must be {HEART}, the one sticker that can be sent")));
            }
        }
        Content::Interactive(things) => check_interactive(product, &mut faults, things),
        Content::Mixed(parts) => check_pictures(product, &mut faults, parts),
        Content::Template(template) if product.has_templates => check_template(&mut faults, template),
        Content::Reaction(reaction) => check_reaction(product, &mut faults, reaction),
        Content::Read(_) | Content::Typing(_) => {}
        Content::Sticker(_)
        | Content::Template(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Unsupported(_) => {
            faults.push(Fault::new("/type", format!("{} cannot be sent on {}", content.kind(), product.name)));
        }
    }
    faults
}

fn check_text(product: &Product, faults: &mut Vec<Fault>, pointer: &str, text: &str) {
    match product.text {
        TextLimit::Characters(max) => check_chars(faults, pointer, text, max),
        TextLimit::Bytes(_) if text.is_empty() => faults.push(Fault::new(pointer, "must not be empty")),
        TextLimit::Bytes(max) if text.len() > max => {
            faults.push(Fault::new(pointer, format!("has {} bytes of UTF-8, at most {max} are allowed", text.len())));
        }
        TextLimit::Bytes(_) => {}
    }
}

fn check_media(faults: &mut Vec<Fault>, pointer: &str, media: &Media, bytes_max: u64) {
    match (&media.id, &media.link) {
        (Some(id), None) if id.is_empty() => faults.push(Fault::new(format!("{pointer}/id"), "must not be empty")),
        (Some(_), None) => {}
        (None, Some(link)) => check_link(faults, &format!("{pointer}/link"), link),
        (None, None) | (Some(_), Some(_)) => faults.push(Fault::new(pointer, "needs exactly one of id and link")),
    }
    if media.caption.as_deref().is_some_and(|caption| !caption.is_empty()) {
        faults.push(Fault::new(format!("{pointer}/caption"), "the platform has no captions: send the text as a message of its own"));
    }
    if let Some(bytes) = media.size_bytes.filter(|bytes| *bytes > bytes_max) {
        faults.push(Fault::new(format!("{pointer}/size_bytes"), format!("is {bytes}, at most {bytes_max} bytes are allowed")));
    }
}

fn check_link(faults: &mut Vec<Fault>, pointer: &str, link: &str) {
    let is_https = link.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let has_host = link.get(8..).is_some_and(|rest| rest.starts_with(|first: char| !matches!(first, '/' | '?' | '#' | ':')));
    if !is_https || !has_host || link.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        faults.push(Fault::new(pointer, "must be an https link"));
    }
}

/// Buttons that open links or are few make a button template; many are quick replies.
pub(super) fn is_button_template(things: &Interactive) -> bool {
    things.buttons.len() <= BUTTONS_MAX
}

fn check_interactive(product: &Product, faults: &mut Vec<Fault>, things: &Interactive) {
    if things.list.is_some() {
        faults.push(Fault::new("/interactive/list", format!("{} has no lists: send buttons, up to {QUICK_REPLIES_MAX}", product.name)));
    }
    for (name, given) in [("header", things.header.is_some()), ("footer", things.footer.is_some())] {
        if given {
            faults.push(Fault::new(format!("/interactive/{name}"), format!("cannot be sent on {}", product.name)));
        }
    }
    if is_button_template(things) {
        check_chars(faults, "/interactive/body", &things.body, BUTTON_TEXT_CHARS_MAX);
    } else {
        check_text(product, faults, "/interactive/body", &things.body);
    }
    if things.buttons.is_empty() || things.buttons.len() > QUICK_REPLIES_MAX {
        let detail = format!("has {} buttons, 1 to {QUICK_REPLIES_MAX} are allowed", things.buttons.len());
        faults.push(Fault::new("/interactive/buttons", detail));
    }
    let mut ids = HashSet::new();
    for (place, button) in things.buttons.iter().enumerate() {
        let pointer = |member: &str| format!("/interactive/buttons/{place}/{member}");
        check_chars(faults, &pointer("title"), &button.title, TITLE_CHARS_MAX);
        match &button.url {
            Some(url) => {
                check_link(faults, &pointer("url"), url);
                if !is_button_template(things) {
                    faults.push(Fault::new(pointer("url"), format!("is allowed with at most {BUTTONS_MAX} buttons")));
                }
            }
            None => {
                check_chars(faults, &pointer("id"), &button.id, PAYLOAD_CHARS_MAX);
                if !ids.insert(&button.id) {
                    faults.push(Fault::new(pointer("id"), "is not unique"));
                }
            }
        }
    }
}

fn check_pictures(product: &Product, faults: &mut Vec<Fault>, parts: &[Content]) {
    if parts.is_empty() || parts.len() > product.pictures_max {
        let rule = match product.pictures_max {
            0 | 1 => format!("{} takes one part a message", product.name),
            max => format!("has {} parts, 1 to {max} are allowed", parts.len()),
        };
        faults.push(Fault::new("/mixed", rule));
    }
    for (place, part) in parts.iter().enumerate() {
        match part {
            Content::Image(media) => check_media(faults, &format!("/mixed/{place}/image"), media, PICTURE_BYTES_MAX),
            _ => faults.push(Fault::new(format!("/mixed/{place}"), "must be an image: only pictures go together")),
        }
    }
}

fn check_template(faults: &mut Vec<Fault>, template: &Template) {
    for (pointer, text) in [("/template/name", &template.name), ("/template/language", &template.language)] {
        if text.is_empty() {
            faults.push(Fault::new(pointer, "must not be empty"));
        }
    }
    if template.components.is_some() && !template.params.is_empty() {
        faults.push(Fault::new("/template", "needs at most one of params and components"));
    }
    if template.components.as_ref().is_some_and(|components| !components.is_array()) {
        faults.push(Fault::new("/template/components", "must be a list"));
    }
}

fn check_reaction(product: &Product, faults: &mut Vec<Fault>, reaction: &Reaction) {
    if reaction.message.is_none() && reaction.platform_id.is_none() {
        faults.push(Fault::new("/reaction", "needs message or platform_id"));
    }
    let emoji = reaction.emoji.as_deref().unwrap_or_default();
    if product.only_reaction.is_some() && !matches!(emoji, "" | "❤" | "❤️" | "love") {
        faults.push(Fault::new("/reaction/emoji", format!("{} takes ❤️ only", product.name)));
    }
}
