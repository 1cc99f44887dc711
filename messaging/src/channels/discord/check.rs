//! Discord's limits, told before a send is taken. Lengths are counted in Unicode characters.

use std::collections::BTreeSet;

use super::send::{interactive_text, with_link};
use crate::channels::{Fault, check_chars};
use crate::content::{Button, Content, Interactive, List, Media, Reaction, Row};

/// Longest text of a message.
const TEXT_CHARS_MAX: usize = 2_000;
/// Most pictures of a message: each is an embed.
pub(super) const PICTURES_MAX: usize = 10;
/// Buttons beside each other.
pub(super) const BUTTONS_PER_ROW: usize = 5;
/// Rows of buttons or lists below a message.
pub(super) const ROWS_MAX: usize = 5;
/// Most choices of one list.
const CHOICES_MAX: usize = 25;
/// Longest id of a button or value of a choice.
const ID_CHARS_MAX: usize = 100;
/// Longest title of a button.
const BUTTON_CHARS_MAX: usize = 80;
/// Longest title or description of a choice.
const CHOICE_CHARS_MAX: usize = 100;
/// Longest text that a list shows before something is chosen.
const PLACEHOLDER_CHARS_MAX: usize = 150;
/// Longest link of a button.
const BUTTON_LINK_CHARS_MAX: usize = 512;
/// Longest link of a picture.
const LINK_CHARS_MAX: usize = 2_048;
/// Longest emoji, with the name and id of a guild's own.
const EMOJI_CHARS_MAX: usize = 64;
/// Longest id of digits.
const ID_DIGITS_MAX: usize = 20;

/// Why a content cannot be sent.
pub(super) fn refusal(content: &Content) -> Option<&'static str> {
    match content {
        Content::Text(_)
        | Content::Image(_)
        | Content::Video(_)
        | Content::Audio(_)
        | Content::Document(_)
        | Content::Sticker(_)
        | Content::Interactive(_)
        | Content::Reaction(_)
        | Content::Typing(_)
        | Content::Mixed(_) => None,
        Content::Template(_) => Some("discord has no templates: send the text itself"),
        Content::Read(_) => Some("bots have no read receipts with discord"),
        Content::Location(_) => Some("discord has no places: send a link to a map"),
        Content::Contacts(_) => Some("discord has no contact cards: send the text"),
        Content::InteractiveReply(_) | Content::Order(_) | Content::Payment(_) | Content::Email(_) | Content::Unsupported(_) => {
            Some("cannot be sent with discord")
        }
    }
}

pub(super) fn check(content: &Content) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(why) = refusal(content) {
        faults.push(Fault::new(format!("/{}", content.kind()), why));
        return faults;
    }
    match content {
        Content::Text(text) => check_text(&mut faults, "/text/body", &text.body),
        Content::Image(media) => check_picture(&mut faults, "/image", media),
        Content::Video(media) => check_linked(&mut faults, "/video", media),
        Content::Audio(media) => check_linked(&mut faults, "/audio", media),
        Content::Document(media) => check_linked(&mut faults, "/document", media),
        Content::Sticker(media) => check_sticker(&mut faults, media),
        Content::Interactive(interactive) => check_interactive(&mut faults, interactive),
        Content::Reaction(reaction) => check_reaction(&mut faults, reaction),
        Content::Mixed(parts) => check_mixed(&mut faults, parts),
        Content::Typing(_)
        | Content::Template(_)
        | Content::Read(_)
        | Content::Location(_)
        | Content::Contacts(_)
        | Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Unsupported(_) => {}
    }
    faults
}

fn check_text(faults: &mut Vec<Fault>, pointer: &str, text: &str) {
    if text.trim().is_empty() {
        faults.push(Fault::new(pointer, "must not be empty"));
    } else {
        check_chars(faults, pointer, text, TEXT_CHARS_MAX);
    }
}

/// An absolute https link with a host and without spaces.
fn is_link(link: &str) -> bool {
    let rest = link.strip_prefix("https://");
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !link.contains(char::is_whitespace))
}

/// Media go by link only: a request holds no files.
fn check_link(faults: &mut Vec<Fault>, pointer: &str, media: &Media) {
    if media.id.is_some() {
        faults.push(Fault::new(format!("{pointer}/id"), "discord takes media by link only"));
    }
    match &media.link {
        None => faults.push(Fault::new(format!("{pointer}/link"), "is needed")),
        Some(link) if !is_link(link) => faults.push(Fault::new(format!("{pointer}/link"), "must be an https link")),
        Some(link) => check_chars(faults, &format!("{pointer}/link"), link, LINK_CHARS_MAX),
    }
}

fn check_picture(faults: &mut Vec<Fault>, pointer: &str, media: &Media) {
    check_link(faults, pointer, media);
    if let Some(caption) = media.caption.as_deref().filter(|caption| !caption.is_empty()) {
        check_chars(faults, &format!("{pointer}/caption"), caption, TEXT_CHARS_MAX);
    }
}

/// Films, sounds and files are a link in the text, which Discord shows as what it leads to.
fn check_linked(faults: &mut Vec<Fault>, pointer: &str, media: &Media) {
    check_link(faults, pointer, media);
    if let Some(link) = &media.link {
        let whole = with_link(media.caption.as_deref(), link);
        if link.chars().count() <= LINK_CHARS_MAX {
            check_chars(faults, &format!("{pointer}/caption"), &whole, TEXT_CHARS_MAX);
        }
    }
}

fn check_sticker(faults: &mut Vec<Fault>, media: &Media) {
    if media.caption.is_some() {
        faults.push(Fault::new("/sticker/caption", "stickers have no caption"));
    }
    match (&media.id, &media.link) {
        (Some(id), None) if is_id(id) => {}
        (Some(_), None) => faults.push(Fault::new("/sticker/id", "must be the digits of a sticker's id")),
        (None, Some(_)) => check_link(faults, "/sticker", media),
        (Some(_), Some(_)) => faults.push(Fault::new("/sticker", "id and link exclude each other")),
        (None, None) => faults.push(Fault::new("/sticker", "id (a sticker of the guild) or link is needed")),
    }
}

/// Whether a text is an id of Discord's.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text with pictures: one message, the pictures below each other.
fn check_mixed(faults: &mut Vec<Fault>, parts: &[Content]) {
    let (mut texts, mut pictures) = (0, 0);
    for (i, part) in parts.iter().enumerate() {
        let pointer = format!("/mixed/{i}");
        match part {
            Content::Text(text) => {
                texts += 1;
                check_text(faults, &format!("{pointer}/text/body"), &text.body);
            }
            Content::Image(media) => {
                pictures += 1;
                let pointer = format!("{pointer}/image");
                check_link(faults, &pointer, media);
                if media.caption.is_some() {
                    faults.push(Fault::new(format!("{pointer}/caption"), "the text of several pictures is a part of its own"));
                }
            }
            _ => faults.push(Fault::new(pointer, "one message of discord holds one text and pictures")),
        }
    }
    if texts > 1 {
        faults.push(Fault::new("/mixed", format!("has {texts} texts, at most 1 is allowed")));
    }
    if pictures == 0 || pictures > PICTURES_MAX {
        faults.push(Fault::new("/mixed", format!("has {pictures} pictures, 1 to {PICTURES_MAX} are allowed")));
    }
}

fn check_interactive(faults: &mut Vec<Fault>, interactive: &Interactive) {
    if interactive.body.trim().is_empty() {
        faults.push(Fault::new("/interactive/body", "must not be empty"));
    }
    // Header, body and footer become one text.
    check_chars(faults, "/interactive/body", &interactive_text(interactive), TEXT_CHARS_MAX);
    match (&interactive.list, interactive.buttons.is_empty()) {
        (Some(_), false) => faults.push(Fault::new("/interactive", "buttons and list exclude each other")),
        (None, true) => faults.push(Fault::new("/interactive", "buttons or a list is needed")),
        (None, false) => check_buttons(faults, &interactive.buttons),
        (Some(list), true) => check_list(faults, list),
    }
}

fn check_buttons(faults: &mut Vec<Fault>, buttons: &[Button]) {
    const BUTTONS_MAX: usize = BUTTONS_PER_ROW * ROWS_MAX;
    if buttons.len() > BUTTONS_MAX {
        faults.push(Fault::new("/interactive/buttons", format!("has {} buttons, at most {BUTTONS_MAX} are allowed", buttons.len())));
    }
    let mut seen = BTreeSet::new();
    for (i, button) in buttons.iter().enumerate() {
        let pointer = format!("/interactive/buttons/{i}");
        check_chars(faults, &format!("{pointer}/title"), &button.title, BUTTON_CHARS_MAX);
        match &button.url {
            Some(url) if !is_link(url) => faults.push(Fault::new(format!("{pointer}/url"), "must be an https link")),
            Some(url) => check_chars(faults, &format!("{pointer}/url"), url, BUTTON_LINK_CHARS_MAX),
            None => check_id(faults, &pointer, &button.id, &mut seen),
        }
    }
}

/// Ids of one message, or of one list, are told apart by nothing else.
fn check_id<'a>(faults: &mut Vec<Fault>, pointer: &str, id: &'a str, seen: &mut BTreeSet<&'a str>) {
    let pointer = format!("{pointer}/id");
    check_chars(faults, &pointer, id, ID_CHARS_MAX);
    if !seen.insert(id) {
        faults.push(Fault::new(pointer, "stands there twice"));
    }
}

/// Each section is a list of its own.
fn check_list(faults: &mut Vec<Fault>, list: &List) {
    if list.sections.is_empty() || list.sections.len() > ROWS_MAX {
        let count = list.sections.len();
        faults.push(Fault::new("/interactive/list/sections", format!("has {count} sections, 1 to {ROWS_MAX} are allowed")));
    }
    check_chars(faults, "/interactive/list/button", &list.button, PLACEHOLDER_CHARS_MAX);
    for (i, section) in list.sections.iter().enumerate() {
        let pointer = format!("/interactive/list/sections/{i}");
        if let Some(title) = &section.title {
            check_chars(faults, &format!("{pointer}/title"), title, PLACEHOLDER_CHARS_MAX);
        }
        if section.rows.is_empty() || section.rows.len() > CHOICES_MAX {
            let count = section.rows.len();
            faults.push(Fault::new(format!("{pointer}/rows"), format!("has {count} rows, 1 to {CHOICES_MAX} are allowed")));
        }
        check_rows(faults, &pointer, &section.rows);
    }
}

fn check_rows(faults: &mut Vec<Fault>, pointer: &str, rows: &[Row]) {
    let mut seen = BTreeSet::new();
    for (j, row) in rows.iter().enumerate() {
        let pointer = format!("{pointer}/rows/{j}");
        check_chars(faults, &format!("{pointer}/title"), &row.title, CHOICE_CHARS_MAX);
        check_id(faults, &pointer, &row.id, &mut seen);
        if let Some(description) = &row.description {
            check_chars(faults, &format!("{pointer}/description"), description, CHOICE_CHARS_MAX);
        }
    }
}

fn check_reaction(faults: &mut Vec<Fault>, reaction: &Reaction) {
    if reaction.message.is_none() && reaction.platform_id.is_none() {
        faults.push(Fault::new("/reaction", "message or platform_id is needed"));
    }
    match reaction.emoji.as_deref().filter(|emoji| !emoji.is_empty()) {
        None => faults.push(Fault::new("/reaction/emoji", "discord takes a reaction away only by its emoji, which is not known: give one")),
        Some(emoji) => {
            check_chars(faults, "/reaction/emoji", emoji, EMOJI_CHARS_MAX);
            if emoji.contains(char::is_whitespace) {
                faults.push(Fault::new("/reaction/emoji", "must be one emoji, or name:id of a guild's own"));
            }
        }
    }
}
