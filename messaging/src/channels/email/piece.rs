//! The bytes of a piece: a line of JSON that says what a parser needs of the request, then what the provider brought.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{bounce, events, fields, mime};
use crate::channels::{Inbound, Malformed, Piece, PieceKind};

/// Events of one request at most; what is beyond is said by a piece of its own, which goes to quarantine.
pub(super) const EVENTS_MAX: usize = 1000;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// A mail in MIME form.
    Mime,
    /// A mail as Mailgun's fields.
    Mailgun,
    /// News from Mailgun: its `event-data`.
    MailgunEvent,
    /// Postmark's JSON, mails and news.
    Postmark,
    /// A mail as SendGrid's fields.
    Sendgrid,
    /// News from SendGrid: one of its events.
    SendgridEvent,
    /// What SES published on SNS.
    Ses,
}

/// What a parser needs of the request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    /// What the bytes are.
    pub source: Source,
    /// Which of the things that they say.
    #[serde(default)]
    pub index: usize,
    /// The provider's id of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The envelope's sender; empty: the null sender of bounces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The envelope's recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// The provider's verdicts: `spf`, `dkim`, `dmarc`, `spam`, `virus`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub verdicts: Map<String, Value>,
}

impl Head {
    pub fn new(source: Source) -> Self {
        Self { source, index: 0, id: None, sender: None, recipients: Vec::new(), verdicts: Map::new() }
    }
}

/// One piece for each thing that the bytes say.
pub(super) fn pieces(mut head: Head, rest: &[u8], out: &mut Vec<Piece>) {
    let body = |head: &Head| {
        let mut bytes = serde_json::to_vec(head).expect("a head serialises");
        bytes.push(b'\n');
        bytes.extend_from_slice(rest);
        Bytes::from(bytes)
    };
    let first = body(&head);
    let Ok(said) = said(&first) else {
        out.push(Piece::unparsable(first));
        return;
    };
    for (index, inbound) in said.iter().enumerate() {
        head.index = index;
        let handle = inbound.contact.handles.first().cloned().unwrap_or_else(crate::content::Handle::account);
        out.push(Piece::new(handle, kind(inbound), body(&head)));
    }
}

fn kind(inbound: &Inbound) -> PieceKind {
    use crate::channels::InboundBody as Body;
    match &inbound.body {
        Body::Message { .. } | Body::Echo { .. } | Body::Edit { .. } | Body::Delete { .. } => PieceKind::Message,
        Body::Status(_) | Body::Watermark { .. } => PieceKind::Status,
        Body::Reaction { .. } => PieceKind::Reaction,
        Body::Account { .. } => PieceKind::Account,
        Body::Preference { .. } | Body::Rekeyed { .. } | Body::Reachable(_) | Body::Resource { .. } | Body::Platform { .. } => {
            PieceKind::Other
        }
    }
}

/// What one piece says.
pub(super) fn parse(piece: &[u8]) -> Result<Inbound, Malformed> {
    let index = split(piece)?.0.index;
    let mut all = said(piece)?;
    if index >= all.len() {
        return Err(malformed("the piece says fewer things than its head claims"));
    }
    Ok(all.swap_remove(index))
}

/// Everything that the bytes of a piece say; at least one thing.
fn said(piece: &[u8]) -> Result<Vec<Inbound>, Malformed> {
    let (head, rest) = split(piece)?;
    let said = match head.source {
        Source::Mime => mime::said(&head, rest),
        Source::Mailgun => fields::mailgun(&head, &json(rest)?),
        Source::Sendgrid => fields::sendgrid(&head, &json(rest)?),
        Source::Postmark => fields::postmark(&head, &json(rest)?),
        Source::MailgunEvent => events::mailgun(&json(rest)?),
        Source::SendgridEvent => events::sendgrid(&json(rest)?),
        Source::Ses => bounce::ses(&head, &json(rest)?),
    };
    match said {
        Some(said) if !said.is_empty() => Ok(said),
        Some(_) | None => Err(malformed("neither a mail with a sender nor news of one")),
    }
}

/// The bytes of what is attached, in the order in which it is told. Only a mail in MIME form still has them.
pub(super) fn files(piece: &[u8]) -> Vec<Bytes> {
    match split(piece) {
        Ok((Head { source: Source::Mime, .. }, rest)) => mime::files(rest),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn split(piece: &[u8]) -> Result<(Head, &[u8]), Malformed> {
    let end = piece.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed("no head"))?;
    let head = serde_json::from_slice(&piece[..end]).map_err(|_| malformed("no head"))?;
    Ok((head, &piece[end + 1..]))
}

fn json(rest: &[u8]) -> Result<Value, Malformed> {
    serde_json::from_slice(rest).map_err(|_| malformed("no JSON"))
}

fn malformed(what: &str) -> Malformed {
    Malformed(what.to_owned())
}
