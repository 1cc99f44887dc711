//! The platform's limits, all faults at once.

use std::collections::HashSet;

use super::{COMMENT, CONVERSATION};
use crate::channels::{Fault, check_chars};
use crate::content::{Button, Content, Handle, Interactive, Media};

const TEXT_CHARS_MAX: usize = 6_000;
const CARD_TITLE_CHARS_MAX: usize = 40;
const CARD_BUTTONS_MAX: usize = 3;
const BUTTON_ID_CHARS_MAX: usize = 40;
/// Longest label of a card with links; one with buttons has shorter ones, and is used where they fit.
const LINK_LABEL_CHARS_MAX: usize = 40;
/// Longest label of a card with buttons.
pub(super) const BUTTON_LABEL_CHARS_MAX: usize = 20;

pub(super) fn check(content: &Content, to: &Handle) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !matches!(to.scheme(), CONVERSATION | COMMENT) {
        faults.push(Fault::new("/to", "must be a conversation_id or comment_id"));
    }
    if to.scheme() == COMMENT && !matches!(content, Content::Text(_)) {
        faults.push(Fault::new("/type", "must be text: a comment is answered by text only"));
    }
    match content {
        Content::Text(text) => check_chars(&mut faults, "/text/body", &text.body, TEXT_CHARS_MAX),
        Content::Image(media) => check_media(&mut faults, "/image", media, "the media_id of an uploaded picture"),
        Content::Video(media) => check_media(&mut faults, "/video", media, "the item_id of a post of this account"),
        Content::Interactive(card) => check_card(&mut faults, card),
        // About the conversation, not about a message.
        Content::Read(_) | Content::Typing(_) => {}
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
        | Content::Unsupported(_) => faults.push(Fault::new("/type", format!("{} cannot be sent on tiktok", content.kind()))),
    }
    faults
}

/// Pictures and posts go by the platform's id only, with nothing beside.
fn check_media(faults: &mut Vec<Fault>, pointer: &str, media: &Media, id: &str) {
    if media.id.as_deref().is_none_or(str::is_empty) {
        faults.push(Fault::new(format!("{pointer}/id"), format!("is needed: {id}")));
    }
    let caption = media.caption.as_deref().filter(|caption| !caption.is_empty());
    let beside = [
        ("link", media.link.is_some()),
        ("caption", caption.is_some()),
        ("filename", media.filename.is_some()),
        ("voice", media.voice.is_some()),
    ];
    for (member, _) in beside.into_iter().filter(|(_, is_there)| *is_there) {
        faults.push(Fault::new(format!("{pointer}/{member}"), "cannot be sent on tiktok"));
    }
}

fn check_card(faults: &mut Vec<Fault>, card: &Interactive) {
    check_chars(faults, "/interactive/body", &card.body, CARD_TITLE_CHARS_MAX);
    let beside = [("header", card.header.is_some()), ("footer", card.footer.is_some()), ("list", card.list.is_some())];
    for (member, _) in beside.into_iter().filter(|(_, is_there)| *is_there) {
        faults.push(Fault::new(format!("/interactive/{member}"), "cannot be sent on tiktok"));
    }
    let count = card.buttons.len();
    if count == 0 || count > CARD_BUTTONS_MAX {
        faults.push(Fault::new("/interactive/buttons", format!("has {count} buttons, 1 to {CARD_BUTTONS_MAX} are allowed")));
    }
    let mut ids = HashSet::new();
    for (place, button) in card.buttons.iter().enumerate() {
        check_button(faults, place, button);
        if !ids.insert(&button.id) {
            faults.push(Fault::new(format!("/interactive/buttons/{place}/id"), "is not unique"));
        }
    }
}

fn check_button(faults: &mut Vec<Fault>, place: usize, button: &Button) {
    let pointer = |member: &str| format!("/interactive/buttons/{place}/{member}");
    check_chars(faults, &pointer("title"), &button.title, LINK_LABEL_CHARS_MAX);
    check_chars(faults, &pointer("id"), &button.id, BUTTON_ID_CHARS_MAX);
    if button.url.is_some() {
        faults.push(Fault::new(pointer("url"), "cannot be sent on tiktok"));
    }
}
