//! Telegram's limits, told before a send is taken.
//!
//! Telegram counts text after entity parsing, in UTF-16 units; no markup is used here, so the units of the text itself are counted.

use super::send::{card, interactive_text};
use crate::channels::Fault;
use crate::content::{Button, Content, Interactive, List, Location, Media, Reaction};

/// Longest text of a message, UTF-16 units.
const TEXT_UNITS_MAX: usize = 4096;
/// Longest caption, UTF-16 units.
const CAPTION_UNITS_MAX: usize = 1024;
/// Longest data of a button, bytes.
const CALLBACK_BYTES_MAX: usize = 64;
/// Most buttons of a keyboard.
const KEYBOARD_BUTTONS_MAX: usize = 100;
/// Shortest and longest live location, seconds.
const LIVE_PERIOD_S: std::ops::RangeInclusive<u64> = 60..=86_400;
/// A live location without an end, seconds.
const LIVE_FOREVER_S: u64 = 0x7FFF_FFFF;

/// Why a template cannot be sent.
pub(super) const NO_TEMPLATES: &str = "telegram has no templates: send the text itself";
/// Why an inbound content cannot be sent.
pub(super) const INBOUND_ONLY: &str = "only arrives, and cannot be sent with telegram";

pub(super) fn check(content: &Content) -> Vec<Fault> {
    let mut faults = Vec::new();
    match content {
        Content::Text(text) => check_text(&mut faults, "/text/body", &text.body),
        Content::Image(media) => check_media(&mut faults, "image", media),
        Content::Video(media) => check_media(&mut faults, "video", media),
        Content::Audio(media) => check_media(&mut faults, "audio", media),
        Content::Document(media) => check_media(&mut faults, "document", media),
        Content::Sticker(media) => {
            check_media(&mut faults, "sticker", media);
            if media.caption.is_some() {
                faults.push(Fault::new("/sticker/caption", "stickers have no caption"));
            }
        }
        Content::Location(location) => check_location(&mut faults, location),
        Content::Contacts(cards) => check_contacts(&mut faults, cards),
        Content::Interactive(interactive) => check_interactive(&mut faults, interactive),
        Content::Reaction(reaction) => check_reaction(&mut faults, reaction),
        Content::Template(_) => faults.push(Fault::new("/template", NO_TEMPLATES)),
        // A read receipt needs a business connection, which only the conversation knows.
        Content::Read(_) | Content::Typing(_) => {}
        Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => {
            faults.push(Fault::new(format!("/{}", content.kind()), INBOUND_ONLY));
        }
    }
    faults
}

fn check_text(faults: &mut Vec<Fault>, pointer: &str, text: &str) {
    if text.trim().is_empty() {
        faults.push(Fault::new(pointer, "must not be empty"));
    } else {
        check_units(faults, pointer, text, TEXT_UNITS_MAX);
    }
}

fn check_units(faults: &mut Vec<Fault>, pointer: &str, text: &str, max: usize) {
    let units = text.encode_utf16().count();
    if units > max {
        faults.push(Fault::new(pointer, format!("has {units} characters (UTF-16 units), at most {max} are allowed")));
    }
}

fn check_media(faults: &mut Vec<Fault>, kind: &str, media: &Media) {
    match (&media.id, &media.link) {
        (Some(_), Some(_)) => faults.push(Fault::new(format!("/{kind}"), "id and link exclude each other")),
        (None, None) => faults.push(Fault::new(format!("/{kind}"), "id (a file_id of this bot) or link is needed")),
        (Some(id), None) if id.is_empty() => faults.push(Fault::new(format!("/{kind}/id"), "must not be empty")),
        (None, Some(link)) if !is_web_link(link) => faults.push(Fault::new(format!("/{kind}/link"), "must be an https or http link")),
        (Some(_), None) | (None, Some(_)) => {}
    }
    if let Some(caption) = &media.caption {
        check_units(faults, &format!("/{kind}/caption"), caption, CAPTION_UNITS_MAX);
    }
}

/// An absolute link with a host and without spaces. What stands there, Telegram says when it has looked.
fn is_web_link(link: &str) -> bool {
    let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !link.contains(char::is_whitespace))
}

fn check_location(faults: &mut Vec<Fault>, location: &Location) {
    if !(-90.0..=90.0).contains(&location.latitude) {
        faults.push(Fault::new("/location/latitude", "must be from -90 to 90"));
    }
    if !(-180.0..=180.0).contains(&location.longitude) {
        faults.push(Fault::new("/location/longitude", "must be from -180 to 180"));
    }
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let (named, addressed) = (filled(&location.name), filled(&location.address));
    if (location.name.is_some() || location.address.is_some()) && !(named && addressed) {
        let missing = if named { "address" } else { "name" };
        faults.push(Fault::new(format!("/location/{missing}"), "a named place needs name and address"));
    }
    if location.url.is_some() {
        faults.push(Fault::new("/location/url", "telegram's places carry no link"));
    }
    let Some(period) = location.live_period_s else {
        return;
    };
    if named {
        faults.push(Fault::new("/location/live_period_s", "a named place cannot be live"));
    }
    if !LIVE_PERIOD_S.contains(&period) && period != LIVE_FOREVER_S {
        faults.push(Fault::new("/location/live_period_s", "must be from 60 to 86400, or 2147483647 for no end"));
    }
}

fn check_contacts(faults: &mut Vec<Fault>, cards: &[serde_json::Value]) {
    let [only] = cards else {
        faults.push(Fault::new("/contacts", format!("has {} cards, telegram sends exactly one", cards.len())));
        return;
    };
    if let Err(rule) = card(only) {
        faults.push(Fault::new("/contacts/0", rule));
    }
}

fn check_interactive(faults: &mut Vec<Fault>, interactive: &Interactive) {
    if interactive.body.trim().is_empty() {
        faults.push(Fault::new("/interactive/body", "must not be empty"));
    }
    // Header, body and footer become one text.
    check_units(faults, "/interactive/body", &interactive_text(interactive), TEXT_UNITS_MAX);
    match (&interactive.list, interactive.buttons.is_empty()) {
        (Some(_), false) => faults.push(Fault::new("/interactive", "buttons and list exclude each other")),
        (None, true) => faults.push(Fault::new("/interactive", "buttons or a list is needed")),
        (None, false) => check_buttons(faults, &interactive.buttons),
        (Some(list), true) => check_list(faults, list),
    }
}

fn check_buttons(faults: &mut Vec<Fault>, buttons: &[Button]) {
    check_keyboard(faults, "/interactive/buttons", buttons.len());
    for (i, button) in buttons.iter().enumerate() {
        let pointer = format!("/interactive/buttons/{i}");
        check_title(faults, &pointer, &button.title);
        match &button.url {
            Some(url) if is_web_link(url) || url.starts_with("tg://") => {}
            Some(_) => faults.push(Fault::new(format!("{pointer}/url"), "must be an https, http or tg link")),
            None => check_callback(faults, &pointer, &button.id),
        }
    }
}

fn check_list(faults: &mut Vec<Fault>, list: &List) {
    check_keyboard(faults, "/interactive/list/sections", list.sections.iter().map(|section| section.rows.len()).sum());
    for (i, section) in list.sections.iter().enumerate() {
        for (j, row) in section.rows.iter().enumerate() {
            let pointer = format!("/interactive/list/sections/{i}/rows/{j}");
            check_title(faults, &pointer, &row.title);
            check_callback(faults, &pointer, &row.id);
        }
    }
}

fn check_keyboard(faults: &mut Vec<Fault>, pointer: &str, buttons: usize) {
    if buttons == 0 {
        faults.push(Fault::new(pointer, "needs at least one button"));
    } else if buttons > KEYBOARD_BUTTONS_MAX {
        faults.push(Fault::new(pointer, format!("has {buttons} buttons, at most {KEYBOARD_BUTTONS_MAX} are allowed")));
    }
}

fn check_title(faults: &mut Vec<Fault>, pointer: &str, title: &str) {
    if title.trim().is_empty() {
        faults.push(Fault::new(format!("{pointer}/title"), "must not be empty"));
    }
}

fn check_callback(faults: &mut Vec<Fault>, pointer: &str, id: &str) {
    if id.is_empty() || id.len() > CALLBACK_BYTES_MAX {
        faults.push(Fault::new(format!("{pointer}/id"), format!("has {} bytes, 1 to {CALLBACK_BYTES_MAX} are allowed", id.len())));
    }
}

fn check_reaction(faults: &mut Vec<Fault>, reaction: &Reaction) {
    if reaction.message.is_none() && reaction.platform_id.is_none() {
        faults.push(Fault::new("/reaction", "message or platform_id is needed"));
    }
    let emoji = reaction.emoji.as_deref().unwrap_or_default();
    if !emoji.is_empty() && !is_custom_emoji(emoji) && !is_one_emoji(emoji) {
        faults.push(Fault::new("/reaction/emoji", "must be one emoji, or the number of a custom one"));
    }
}

/// Inbound reactions give a custom emoji as its number; so may outbound ones.
pub(super) fn is_custom_emoji(emoji: &str) -> bool {
    emoji.len() >= 6 && emoji.len() <= 20 && emoji.bytes().all(|byte| byte.is_ascii_digit())
}

const ZERO_WIDTH_JOINER: char = '\u{200D}';

/// One emoji in the eye of the reader: a flag, a keycap, or pictures joined by zero-width joiners, each with its modifiers.
/// Which ones may be reactions changes; Telegram refuses the others.
fn is_one_emoji(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let is_flag_letter = |char: &char| ('\u{1F1E6}'..='\u{1F1FF}').contains(char);
    if chars.len() == 2 && chars.iter().all(is_flag_letter) {
        return true;
    }
    let is_keycap_base = |char: char| char.is_ascii_digit() || char == '#' || char == '*';
    if chars.last() == Some(&'\u{20E3}') {
        let base = chars[..chars.len() - 1].strip_suffix(&['\u{FE0F}']).unwrap_or(&chars[..chars.len() - 1]);
        return matches!(base, [base] if is_keycap_base(*base));
    }
    chars
        .split(|char| *char == ZERO_WIDTH_JOINER)
        .all(|part| matches!(part.split_first(), Some((base, rest)) if is_picture(*base) && rest.iter().copied().all(is_modifier)))
}

/// Variation selectors, skin tones, and the tags of subdivision flags.
fn is_modifier(char: char) -> bool {
    matches!(char, '\u{FE0E}' | '\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..='\u{E007F}')
}

/// The blocks that hold emoji.
fn is_picture(char: char) -> bool {
    matches!(char, '©' | '®' | '‼' | '⁉' | '™' | 'ℹ' | '〰' | '〽' | '㊗' | '㊙'
        | '\u{2190}'..='\u{21FF}' | '\u{2300}'..='\u{23FF}' | '\u{24C2}' | '\u{25A0}'..='\u{27BF}'
        | '\u{2900}'..='\u{297F}' | '\u{2B00}'..='\u{2BFF}' | '\u{1F000}'..='\u{1F1E5}' | '\u{1F200}'..='\u{1FAFF}')
}
