//! The platform's limits. All faults are told, not just the first.

use std::collections::HashSet;

use serde_json::Value;

use crate::channels::{Fault, check_chars};
use crate::content::{Button, Content, Handle, Interactive, List, Location, Media, Reaction, Template};

const TEXT_CHARS_MAX: usize = 4096;
const CAPTION_CHARS_MAX: usize = 1024;
const BODY_CHARS_MAX: usize = 1024;
const HEADER_CHARS_MAX: usize = 60;
const FOOTER_CHARS_MAX: usize = 60;
const BUTTONS_MAX: usize = 3;
const BUTTON_ID_CHARS_MAX: usize = 256;
const BUTTON_TITLE_CHARS_MAX: usize = 20;
const SECTIONS_MAX: usize = 10;
const ROWS_MAX: usize = 10;
const SECTION_TITLE_CHARS_MAX: usize = 24;
const ROW_ID_CHARS_MAX: usize = 200;
const ROW_TITLE_CHARS_MAX: usize = 24;
const ROW_DESCRIPTION_CHARS_MAX: usize = 72;

pub(super) fn check(content: &Content, to: &Handle) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !matches!(to.scheme(), "phone" | "bsuid" | "group") {
        faults.push(Fault::new("/to", "must be a phone, bsuid or group"));
    }
    match content {
        Content::Text(text) => check_chars(&mut faults, "/text/body", &text.body, TEXT_CHARS_MAX),
        Content::Image(media) => check_media(&mut faults, "/image", media, Extras { caption: true, ..Extras::NONE }),
        Content::Video(media) => check_media(&mut faults, "/video", media, Extras { caption: true, ..Extras::NONE }),
        Content::Audio(media) => check_media(&mut faults, "/audio", media, Extras { voice: true, ..Extras::NONE }),
        Content::Document(media) => check_media(&mut faults, "/document", media, Extras { caption: true, filename: true, voice: false }),
        Content::Sticker(media) => check_media(&mut faults, "/sticker", media, Extras::NONE),
        Content::Location(place) => check_location(&mut faults, place),
        Content::Contacts(cards) => check_contacts(&mut faults, cards),
        Content::Interactive(things) => check_interactive(&mut faults, things),
        Content::Template(template) => check_template(&mut faults, template),
        Content::Reaction(reaction) => check_reaction(&mut faults, reaction),
        // Without a message it is about the newest inbound one, which the router knows.
        Content::Read(_) | Content::Typing(_) => {}
        Content::InteractiveReply(_)
        | Content::Order(_)
        | Content::Payment(_)
        | Content::Email(_)
        | Content::Mixed(_)
        | Content::Unsupported(_) => {
            faults.push(Fault::new("/type", format!("{} cannot be sent on whatsapp", content.kind())));
        }
    }
    faults
}

/// What a kind of medium may have beside it.
struct Extras {
    caption: bool,
    filename: bool,
    voice: bool,
}

impl Extras {
    const NONE: Self = Self { caption: false, filename: false, voice: false };
}

fn check_media(faults: &mut Vec<Fault>, pointer: &str, media: &Media, may: Extras) {
    match (&media.id, &media.link) {
        (Some(id), None) if id.is_empty() => faults.push(Fault::new(format!("{pointer}/id"), "must not be empty")),
        (Some(_), None) => {}
        (None, Some(link)) => check_link(faults, &format!("{pointer}/link"), link),
        (None, None) | (Some(_), Some(_)) => faults.push(Fault::new(pointer, "needs exactly one of id and link")),
    }
    match media.caption.as_deref().filter(|caption| !caption.is_empty()) {
        Some(caption) if may.caption => check_chars(faults, &format!("{pointer}/caption"), caption, CAPTION_CHARS_MAX),
        Some(_) => faults.push(Fault::new(format!("{pointer}/caption"), "is allowed with image, video and document only")),
        None => {}
    }
    match &media.filename {
        Some(name) if may.filename && name.is_empty() => faults.push(Fault::new(format!("{pointer}/filename"), "must not be empty")),
        Some(_) if may.filename => {}
        Some(_) => faults.push(Fault::new(format!("{pointer}/filename"), "is allowed with document only")),
        None => {}
    }
    if media.voice.is_some() && !may.voice {
        faults.push(Fault::new(format!("{pointer}/voice"), "is allowed with audio only"));
    }
}

fn check_link(faults: &mut Vec<Fault>, pointer: &str, link: &str) {
    // Schemes know no case, and a link of some use has a host behind it.
    let is_https = link.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let has_host = link.get(8..).is_some_and(|rest| rest.starts_with(|first: char| !matches!(first, '/' | '?' | '#' | ':')));
    if !is_https || !has_host || link.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        faults.push(Fault::new(pointer, "must be an https link"));
    }
}

fn check_location(faults: &mut Vec<Fault>, place: &Location) {
    if !(-90.0..=90.0).contains(&place.latitude) {
        faults.push(Fault::new("/location/latitude", "must be between -90 and 90"));
    }
    if !(-180.0..=180.0).contains(&place.longitude) {
        faults.push(Fault::new("/location/longitude", "must be between -180 and 180"));
    }
    if place.url.is_some() {
        faults.push(Fault::new("/location/url", "cannot be sent on whatsapp"));
    }
    if place.live_period_s.is_some() {
        faults.push(Fault::new("/location/live_period_s", "cannot be sent on whatsapp"));
    }
}

fn check_contacts(faults: &mut Vec<Fault>, cards: &[Value]) {
    if cards.is_empty() {
        faults.push(Fault::new("/contacts", "must not be empty"));
    }
    for (place, card) in cards.iter().enumerate() {
        let name = card.pointer("/name/formatted_name").and_then(Value::as_str).unwrap_or_default();
        if !card.is_object() {
            faults.push(Fault::new(format!("/contacts/{place}"), "must be an object"));
        } else if name.is_empty() {
            faults.push(Fault::new(format!("/contacts/{place}/name/formatted_name"), "must be text and not empty"));
        }
    }
}

fn check_interactive(faults: &mut Vec<Fault>, things: &Interactive) {
    check_chars(faults, "/interactive/body", &things.body, BODY_CHARS_MAX);
    if let Some(header) = &things.header {
        check_chars(faults, "/interactive/header", header, HEADER_CHARS_MAX);
    }
    if let Some(footer) = &things.footer {
        check_chars(faults, "/interactive/footer", footer, FOOTER_CHARS_MAX);
    }
    match (&things.buttons[..], &things.list) {
        ([], Some(list)) => check_list(faults, list),
        ([], None) | ([_, ..], Some(_)) => faults.push(Fault::new("/interactive", "needs exactly one of buttons and list")),
        (buttons, None) => check_buttons(faults, buttons),
    }
}

fn check_buttons(faults: &mut Vec<Fault>, buttons: &[Button]) {
    if buttons.len() > BUTTONS_MAX {
        faults.push(Fault::new("/interactive/buttons", format!("has {} buttons, at most {BUTTONS_MAX} are allowed", buttons.len())));
    }
    let mut ids = HashSet::new();
    for (place, button) in buttons.iter().enumerate() {
        let pointer = |member: &str| format!("/interactive/buttons/{place}/{member}");
        check_chars(faults, &pointer("title"), &button.title, BUTTON_TITLE_CHARS_MAX);
        if let Some(url) = &button.url {
            // It sends nothing back, so its id has no limits.
            check_link(faults, &pointer("url"), url);
            if buttons.len() > 1 {
                faults.push(Fault::new(pointer("url"), "is allowed on an only button"));
            }
            continue;
        }
        check_chars(faults, &pointer("id"), &button.id, BUTTON_ID_CHARS_MAX);
        if !ids.insert(&button.id) {
            faults.push(Fault::new(pointer("id"), "is not unique"));
        }
    }
}

fn check_list(faults: &mut Vec<Fault>, list: &List) {
    check_chars(faults, "/interactive/list/button", &list.button, BUTTON_TITLE_CHARS_MAX);
    let sections = list.sections.len();
    if sections == 0 || sections > SECTIONS_MAX {
        faults.push(Fault::new("/interactive/list/sections", format!("has {sections} sections, 1 to {SECTIONS_MAX} are allowed")));
    }
    let rows: usize = list.sections.iter().map(|section| section.rows.len()).sum();
    if rows > ROWS_MAX {
        faults.push(Fault::new("/interactive/list/sections", format!("has {rows} rows in all, at most {ROWS_MAX} are allowed")));
    }
    let mut ids = HashSet::new();
    for (place, section) in list.sections.iter().enumerate() {
        let pointer = format!("/interactive/list/sections/{place}");
        match &section.title {
            Some(title) => check_chars(faults, &format!("{pointer}/title"), title, SECTION_TITLE_CHARS_MAX),
            None if sections > 1 => faults.push(Fault::new(format!("{pointer}/title"), "is needed when there are several sections")),
            None => {}
        }
        if section.rows.is_empty() {
            faults.push(Fault::new(format!("{pointer}/rows"), "must not be empty"));
        }
        for (place, row) in section.rows.iter().enumerate() {
            let pointer = |member: &str| format!("{pointer}/rows/{place}/{member}");
            check_chars(faults, &pointer("id"), &row.id, ROW_ID_CHARS_MAX);
            check_chars(faults, &pointer("title"), &row.title, ROW_TITLE_CHARS_MAX);
            if let Some(description) = &row.description {
                check_chars(faults, &pointer("description"), description, ROW_DESCRIPTION_CHARS_MAX);
            }
            if !ids.insert(&row.id) {
                faults.push(Fault::new(pointer("id"), "is not unique"));
            }
        }
    }
}

fn check_template(faults: &mut Vec<Fault>, template: &Template) {
    for (pointer, text) in [("/template/name", &template.name), ("/template/language", &template.language)] {
        if text.is_empty() {
            faults.push(Fault::new(pointer, "must not be empty"));
        }
    }
    for (place, param) in template.params.iter().enumerate() {
        if param.is_empty() {
            faults.push(Fault::new(format!("/template/params/{place}"), "must not be empty"));
        }
    }
    let Some(components) = &template.components else { return };
    if !template.params.is_empty() {
        faults.push(Fault::new("/template", "needs at most one of params and components"));
    }
    if !components.is_array() {
        faults.push(Fault::new("/template/components", "must be a list"));
    }
}

fn check_reaction(faults: &mut Vec<Fault>, reaction: &Reaction) {
    if reaction.message.is_none() && reaction.platform_id.is_none() {
        faults.push(Fault::new("/reaction", "needs message or platform_id"));
    }
}
