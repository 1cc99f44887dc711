//! Verify and split. The hot path: one constant-time comparison, then one pass over the JSON that keeps only the kind and the chat.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::chat_handle;
use crate::channels::{Piece, PieceKind, Received, Refusal, Verifier};
use crate::content::Handle;
use crate::exchange::WebhookRequest;

/// The header that Telegram puts the secret token in.
const TOKEN_HEADER: &str = "x-telegram-bot-api-secret-token";

pub(super) fn receive(request: &WebhookRequest<'_>, verifier: &Verifier) -> Result<Received, Refusal> {
    if !request.is_post {
        return Err(Refusal::Method);
    }
    if !is_authentic(request, verifier) {
        return Err(Refusal::Unauthentic);
    }
    let piece = match locate(request.body) {
        Some(located) => Piece::new(located.handle(), located.piece_kind(), request.body.clone()),
        None => Piece::unparsable(request.body.clone()),
    };
    Ok(Received::Pieces(vec![piece]))
}

fn is_authentic(request: &WebhookRequest<'_>, verifier: &Verifier) -> bool {
    let Verifier::Tokens(tokens) = verifier else { return false };
    let Some(presented) = request.headers.get(TOKEN_HEADER) else {
        return false;
    };
    // Every live token is compared, so that the time does not tell which one fits.
    let mut found = false;
    for token in tokens {
        found |= token.matches(presented.as_bytes());
    }
    found
}

/// The kinds of update of Bot API 10.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateKind {
    Message,
    EditedMessage,
    ChannelPost,
    EditedChannelPost,
    BusinessConnection,
    BusinessMessage,
    EditedBusinessMessage,
    DeletedBusinessMessages,
    GuestMessage,
    MessageReaction,
    MessageReactionCount,
    InlineQuery,
    ChosenInlineResult,
    CallbackQuery,
    ShippingQuery,
    PreCheckoutQuery,
    PurchasedPaidMedia,
    Poll,
    PollAnswer,
    MyChatMember,
    ChatMember,
    ChatJoinRequest,
    ChatBoost,
    RemovedChatBoost,
    ManagedBot,
}

/// Names of the kinds, most frequent first because they are compared in this order.
static KINDS: [(&str, UpdateKind); 25] = [
    ("message", UpdateKind::Message),
    ("callback_query", UpdateKind::CallbackQuery),
    ("business_message", UpdateKind::BusinessMessage),
    ("edited_message", UpdateKind::EditedMessage),
    ("message_reaction", UpdateKind::MessageReaction),
    ("my_chat_member", UpdateKind::MyChatMember),
    ("channel_post", UpdateKind::ChannelPost),
    ("edited_channel_post", UpdateKind::EditedChannelPost),
    ("business_connection", UpdateKind::BusinessConnection),
    ("edited_business_message", UpdateKind::EditedBusinessMessage),
    ("deleted_business_messages", UpdateKind::DeletedBusinessMessages),
    ("guest_message", UpdateKind::GuestMessage),
    ("message_reaction_count", UpdateKind::MessageReactionCount),
    ("inline_query", UpdateKind::InlineQuery),
    ("chosen_inline_result", UpdateKind::ChosenInlineResult),
    ("shipping_query", UpdateKind::ShippingQuery),
    ("pre_checkout_query", UpdateKind::PreCheckoutQuery),
    ("purchased_paid_media", UpdateKind::PurchasedPaidMedia),
    ("poll", UpdateKind::Poll),
    ("poll_answer", UpdateKind::PollAnswer),
    ("chat_member", UpdateKind::ChatMember),
    ("chat_join_request", UpdateKind::ChatJoinRequest),
    ("chat_boost", UpdateKind::ChatBoost),
    ("removed_chat_boost", UpdateKind::RemovedChatBoost),
    ("managed_bot", UpdateKind::ManagedBot),
];

impl UpdateKind {
    fn from_name(name: &str) -> Option<(&'static str, Self)> {
        KINDS.iter().find(|(known, _)| *known == name).copied()
    }
}

/// What one pass over an update finds.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) update_id: i64,
    /// The kind with its name; none for a kind that is not known here.
    pub(super) kind: Option<(&'static str, UpdateKind)>,
    /// The chat or person that it concerns; none: the account.
    pub(super) chat: Option<i64>,
}

impl Located {
    pub(super) fn handle(&self) -> Handle {
        self.chat.map_or_else(Handle::account, chat_handle)
    }

    fn piece_kind(&self) -> PieceKind {
        let Some((_, kind)) = self.kind else {
            return PieceKind::Other;
        };
        match kind {
            UpdateKind::Message
            | UpdateKind::EditedMessage
            | UpdateKind::ChannelPost
            | UpdateKind::EditedChannelPost
            | UpdateKind::BusinessMessage
            | UpdateKind::EditedBusinessMessage
            | UpdateKind::DeletedBusinessMessages
            | UpdateKind::GuestMessage
            | UpdateKind::CallbackQuery => PieceKind::Message,
            UpdateKind::MessageReaction | UpdateKind::MessageReactionCount => PieceKind::Reaction,
            UpdateKind::BusinessConnection => PieceKind::Account,
            UpdateKind::InlineQuery
            | UpdateKind::ChosenInlineResult
            | UpdateKind::ShippingQuery
            | UpdateKind::PreCheckoutQuery
            | UpdateKind::PurchasedPaidMedia
            | UpdateKind::Poll
            | UpdateKind::PollAnswer
            | UpdateKind::MyChatMember
            | UpdateKind::ChatMember
            | UpdateKind::ChatJoinRequest
            | UpdateKind::ChatBoost
            | UpdateKind::RemovedChatBoost
            | UpdateKind::ManagedBot => PieceKind::Other,
        }
    }
}

/// Finds kind and chat without keeping anything else. None: not an update. `parse` starts from it too, so both name the same conversation.
pub(super) fn locate(body: &[u8]) -> Option<Located> {
    serde_json::from_slice(body).ok()
}

/// Something with an id.
#[derive(Deserialize)]
struct HasId {
    id: i64,
}

/// The members of an update's object that may say whom it concerns.
#[derive(Deserialize, Default)]
struct Parts {
    #[serde(default)]
    chat: Option<HasId>,
    #[serde(default)]
    from: Option<HasId>,
    #[serde(default)]
    user: Option<HasId>,
    #[serde(default)]
    voter_chat: Option<HasId>,
    #[serde(default)]
    message: Option<InChat>,
}

#[derive(Deserialize)]
struct InChat {
    #[serde(default)]
    chat: Option<HasId>,
}

impl Parts {
    fn chat_for(self, kind: UpdateKind) -> Option<i64> {
        let found = match kind {
            UpdateKind::Message
            | UpdateKind::EditedMessage
            | UpdateKind::ChannelPost
            | UpdateKind::EditedChannelPost
            | UpdateKind::BusinessMessage
            | UpdateKind::EditedBusinessMessage
            | UpdateKind::DeletedBusinessMessages
            | UpdateKind::MessageReaction
            | UpdateKind::MessageReactionCount
            | UpdateKind::MyChatMember
            | UpdateKind::ChatMember
            | UpdateKind::ChatJoinRequest
            | UpdateKind::ChatBoost
            | UpdateKind::RemovedChatBoost => self.chat,
            UpdateKind::CallbackQuery => self.message.and_then(|message| message.chat).or(self.from),
            // A guest message comes from a chat that the bot is not in: only the person can be named.
            UpdateKind::GuestMessage
            | UpdateKind::InlineQuery
            | UpdateKind::ChosenInlineResult
            | UpdateKind::ShippingQuery
            | UpdateKind::PreCheckoutQuery
            | UpdateKind::PurchasedPaidMedia => self.from,
            UpdateKind::PollAnswer => self.user.or(self.voter_chat),
            UpdateKind::BusinessConnection | UpdateKind::Poll | UpdateKind::ManagedBot => None,
        };
        found.map(|found| found.id).filter(|id| *id != 0)
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UpdateVisitor)
    }
}

struct UpdateVisitor;

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for UpdateVisitor {
    type Value = Located;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Located, A::Error> {
        let mut update_id = None;
        let mut kind = None;
        let mut chat = None;
        while let Some(Name(name)) = map.next_key()? {
            if name == "update_id" {
                update_id = Some(map.next_value()?);
                continue;
            }
            let Some(known) = UpdateKind::from_name(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // An update has one object. Of two, one would be lost without a word: quarantine keeps both.
            if kind.is_some() {
                return Err(A::Error::custom("two objects in one update"));
            }
            let parts: Option<Parts> = map.next_value()?;
            kind = Some(known);
            chat = parts.unwrap_or_default().chat_for(known.1);
        }
        let update_id = update_id.ok_or_else(|| A::Error::missing_field("update_id"))?;
        Ok(Located { update_id, kind, chat })
    }
}
