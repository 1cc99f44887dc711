//! What Meta's products share: the proof of a webhook, and for Messenger and Instagram the envelope, the events, the sends and
//! the answers. What differs between the two is data, a `Product`.
//!
//! In the order of a message's path: `proof` judges, `envelope` splits, `wire` names the shapes, `event` and `content` say what
//! happened, `check` knows the limits, `send` builds the calls, `outcome` judges the answers; `oauth` keeps tokens alive.
//! `signed_request` reads the callbacks of data deletion and deauthorisation.

mod check;
mod content;
mod envelope;
mod event;
mod oauth;
mod outcome;
mod proof;
mod send;
pub mod signed_request;
mod wire;

pub(in crate::channels) use check::check;
pub(in crate::channels) use envelope::pieces;
pub(in crate::channels) use event::parse;
pub(in crate::channels) use oauth::{instagram_life, instagram_request, page_life, page_request, refreshed, refuses};
pub(in crate::channels) use outcome::{holds, outcome};
pub(in crate::channels) use proof::authentic;
pub(in crate::channels) use send::{probe, request};

use std::time::Duration;

use super::{TagRule, WindowRule};

/// What differs between Messenger and Instagram.
#[derive(Debug)]
pub(in crate::channels) struct Product {
    /// Its name, for refusals.
    pub name: &'static str,
    /// `object` of its envelope.
    pub object: &'static str,
    /// The scheme of a person's handle.
    pub scheme: &'static str,
    /// The member of an account that is its id.
    pub identity: &'static str,
    /// What a probe asks for.
    pub probe_fields: &'static str,
    /// How texts are counted, and the most of it.
    pub text: TextLimit,
    /// Whether a person who comes by a link opens the window of an existing thread.
    pub referral_opens: bool,
    /// Whether every send says its `messaging_type`.
    pub says_type: bool,
    /// Whether sends carry our id, which their echo brings back.
    pub has_metadata: bool,
    /// Whether there are utility templates.
    pub has_templates: bool,
    /// Most pictures in one message.
    pub pictures_max: usize,
    /// The one reaction that it takes; none: any emoji.
    pub only_reaction: Option<&'static str>,
    /// Whether there is a heart to send as a sticker.
    pub has_heart: bool,
}

/// How texts are counted.
#[derive(Debug, Clone, Copy)]
pub(in crate::channels) enum TextLimit {
    /// Unicode characters.
    Characters(usize),
    /// Bytes of UTF-8.
    Bytes(usize),
}

/// What a person of the business may still write after the window.
pub(in crate::channels) const TAGS: &[TagRule] = &[TagRule { name: "human_agent", length: Duration::from_secs(7 * 24 * 3_600) }];

/// Whose links come with messages. They are signed, and want no token.
pub(in crate::channels) const MEDIA_HOSTS: &[&str] = &["fbsbx.com", "fbcdn.net", "cdninstagram.com"];

/// The scheme of a comment's handle: a private reply goes to a comment, not to a person.
pub(in crate::channels) const COMMENT: &str = "comment";

/// One private reply within seven days.
pub(in crate::channels) const PRIVATE_REPLY: WindowRule = WindowRule {
    length: Duration::from_secs(7 * 24 * 3_600),
    after_ad: Duration::from_secs(7 * 24 * 3_600),
    cap: Some(1),
    tags: &[],
    otherwise: None,
};
