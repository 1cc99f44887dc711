//! A send on its way to a platform, and what is wrong with it.

use crate::clock::Timestamp;
use crate::content::{Content, Handle};
use crate::exchange::{HttpRequest, MailSubmission};

/// A send, ready to be turned into a request.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Our id, as text: given to the platform where it gives it back.
    pub message: &'a str,
    /// To whom.
    pub to: &'a Handle,
    /// What.
    pub content: &'a Content,
    /// The platform's id of the message that it answers.
    pub reply_to: Option<&'a str>,
    /// The way to write back, while it can be used (`ContactInfo::via`).
    pub via: Option<&'a str>,
    /// The tag that allows it outside the window (`WindowRule::tags`). Only given when it is needed.
    pub tag: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// How a send leaves.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// A request to the platform's API.
    Http(HttpRequest),
    /// A mail to a relay.
    Mail(Box<MailSubmission>),
}

/// Something is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer.
    pub pointer: String,
    /// What, with the rule.
    pub detail: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// A content that this channel cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsendable(pub String);

/// The longest text by Unicode characters that a platform takes, as a fault when it is longer or empty.
pub(crate) fn check_chars(faults: &mut Vec<Fault>, pointer: &str, text: &str, max: usize) {
    let chars = text.chars().count();
    if chars == 0 {
        faults.push(Fault::new(pointer, "must not be empty"));
    } else if chars > max {
        faults.push(Fault::new(pointer, format!("has {chars} characters, at most {max} are allowed")));
    }
}
