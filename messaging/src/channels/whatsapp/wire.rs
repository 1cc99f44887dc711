//! The shapes of inner events, borrowed from the webhook's bytes. They name only what is needed: what a receiver looks at is typed,
//! everything else stays raw until somebody asks.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::channels::PieceKind;
use crate::clock::Timestamp;

/// Conversations that Meta's own agent handles: the same shapes, but we only listen.
pub(super) const STANDBY: &str = "standby";
/// The handover of a conversation between Meta's agent and us.
const HANDOVERS: &str = "messaging_handovers";

/// Fields whose change holds lists of inner events. Every other field is one event.
pub(super) fn is_split(field: &str) -> bool {
    matches!(field, "messages" | "standby" | "smb_message_echoes" | "message_echoes" | "calls" | "user_preferences")
}

/// Fields about templates.
pub(super) fn is_template_field(field: &str) -> bool {
    field.starts_with("message_template_") || field.starts_with("template_")
}

/// Fields about the account and its standing.
pub(super) fn is_account_field(field: &str) -> bool {
    field.starts_with("account_") || field.starts_with("phone_number_") || field.starts_with("business_") || field == "security"
}

/// Text, borrowed when it has no escapes. (`Option<Cow<str>>` by itself would always copy.)
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(super) struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Str<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Str<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Unix seconds, as text or number. What is neither says no time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seconds(pub Timestamp);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Seconds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds as text or number")
            }
            fn visit_str<E>(self, text: &str) -> Result<Seconds, E> {
                Ok(Seconds(text.parse().map_or(Timestamp::ZERO, Timestamp::from_secs)))
            }
            fn visit_u64<E>(self, secs: u64) -> Result<Seconds, E> {
                Ok(Seconds(Timestamp::from_secs(secs)))
            }
            fn visit_i64<E>(self, secs: i64) -> Result<Seconds, E> {
                Ok(Seconds(u64::try_from(secs).map_or(Timestamp::ZERO, Timestamp::from_secs)))
            }
            fn visit_f64<E>(self, secs: f64) -> Result<Seconds, E> {
                Ok(Seconds(Timestamp::from_secs(secs as u64)))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Seconds, E> {
                Ok(Seconds::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Seconds, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Seconds::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seconds, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Seconds::default())
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Whom a message concerns, or an echo of one. (Small, because a receiver needs no more.)
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub id: Option<Str<'a>>,
    #[serde(borrow)]
    pub from: Option<Str<'a>>,
    #[serde(borrow)]
    pub from_user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub to: Option<Str<'a>>,
    #[serde(borrow)]
    pub to_user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub group_id: Option<Str<'a>>,
    pub timestamp: Option<Seconds>,
    #[serde(borrow, rename = "type")]
    pub kind: Option<Str<'a>>,
    #[serde(borrow)]
    pub system: Option<&'a RawValue>,
}

/// What a message says, and what it says beside.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parts<'a> {
    #[serde(borrow)]
    pub context: Option<&'a RawValue>,
    #[serde(borrow)]
    pub referral: Option<&'a RawValue>,
    #[serde(borrow)]
    pub identity: Option<&'a RawValue>,
    #[serde(borrow)]
    pub text: Option<&'a RawValue>,
    #[serde(borrow)]
    pub image: Option<&'a RawValue>,
    #[serde(borrow)]
    pub video: Option<&'a RawValue>,
    #[serde(borrow)]
    pub audio: Option<&'a RawValue>,
    #[serde(borrow)]
    pub document: Option<&'a RawValue>,
    #[serde(borrow)]
    pub sticker: Option<&'a RawValue>,
    #[serde(borrow)]
    pub location: Option<&'a RawValue>,
    #[serde(borrow)]
    pub contacts: Option<&'a RawValue>,
    #[serde(borrow)]
    pub interactive: Option<&'a RawValue>,
    #[serde(borrow)]
    pub button: Option<&'a RawValue>,
    #[serde(borrow)]
    pub order: Option<&'a RawValue>,
    #[serde(borrow)]
    pub reaction: Option<&'a RawValue>,
    #[serde(borrow)]
    pub edit: Option<&'a RawValue>,
    #[serde(borrow)]
    pub revoke: Option<&'a RawValue>,
}

/// What a system message says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct System<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Option<Str<'a>>,
    #[serde(borrow)]
    pub wa_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub previous_user_id: Option<Str<'a>>,
}

impl System<'_> {
    /// Whether the person has other handles now.
    pub fn is_rekeying(&self) -> bool {
        matches!(self.kind.as_deref(), Some("user_changed_number" | "user_changed_user_id"))
    }
}

impl<'a> Message<'a> {
    /// The system part, of system messages only.
    pub fn system_part(&self) -> Option<System<'a>> {
        if self.kind.as_deref() != Some("system") {
            return None;
        }
        self.system.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }
}

/// News of a message, call or payment of ours.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StatusNews<'a> {
    #[serde(borrow)]
    pub id: Option<Str<'a>>,
    #[serde(borrow)]
    pub status: Option<Str<'a>>,
    #[serde(borrow, rename = "type")]
    pub kind: Option<Str<'a>>,
    pub timestamp: Option<Seconds>,
    #[serde(borrow)]
    pub recipient_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub recipient_user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub recipient_type: Option<Str<'a>>,
    #[serde(borrow)]
    pub recipient_participant_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub recipient_participant_user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub biz_opaque_callback_data: Option<Str<'a>>,
    #[serde(borrow)]
    pub errors: Option<&'a RawValue>,
    #[serde(borrow)]
    pub pricing: Option<&'a RawValue>,
    #[serde(borrow)]
    pub conversation: Option<&'a RawValue>,
}

/// A step of a voice call.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    pub id: Option<Str<'a>>,
    #[serde(borrow)]
    pub from: Option<Str<'a>>,
    #[serde(borrow)]
    pub from_user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub to: Option<Str<'a>>,
    #[serde(borrow)]
    pub to_user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub event: Option<Str<'a>>,
    #[serde(borrow)]
    pub direction: Option<Str<'a>>,
    pub timestamp: Option<Seconds>,
}

impl Call<'_> {
    /// Whether we called.
    pub fn is_ours(&self) -> bool {
        self.direction.as_deref() == Some("BUSINESS_INITIATED")
    }
}

/// A person's wish about messages of a category.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Preference<'a> {
    #[serde(borrow)]
    pub wa_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub user_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub category: Option<Str<'a>>,
    #[serde(borrow)]
    pub value: Option<Str<'a>>,
    pub timestamp: Option<Seconds>,
}

/// A conversation passes between Meta's agent and us.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Handover<'a> {
    #[serde(borrow)]
    pub sender: Sender<'a>,
    pub timestamp: Option<Seconds>,
}

/// Whose conversation is handed over.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Sender<'a> {
    #[serde(borrow)]
    pub phone_number: Option<Str<'a>>,
    #[serde(borrow)]
    pub user_id: Option<Str<'a>>,
}

/// One of the lists that a change may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Messages,
    Statuses,
    Errors,
    Calls,
    Echoes,
    Preferences,
}

impl List {
    pub const ALL: [Self; 6] = [Self::Messages, Self::Statuses, Self::Errors, Self::Calls, Self::Echoes, Self::Preferences];

    /// The list that a member of a change's value is.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.name() == name)
    }

    /// The member of a change's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Statuses => "statuses",
            Self::Errors => "errors",
            Self::Calls => "calls",
            Self::Echoes => "message_echoes",
            Self::Preferences => "user_preferences",
        }
    }
}

/// One inner event. Few are alive at a time, so the largest kind's size does not matter.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Event<'a> {
    Message(Message<'a>),
    Echo(Message<'a>),
    Status(StatusNews<'a>),
    Call(Call<'a>),
    Preference(Preference<'a>),
    /// An error that belongs to no message.
    Error(&'a RawValue),
    Handover(Handover<'a>),
    /// The whole change.
    Whole,
}

impl<'a> Event<'a> {
    /// From one element of a list.
    pub fn of_element(list: List, raw: &'a RawValue) -> Result<Self, serde_json::Error> {
        let text = raw.get();
        Ok(match list {
            List::Messages => Self::Message(serde_json::from_str(text)?),
            List::Statuses => Self::Status(serde_json::from_str(text)?),
            List::Errors => Self::Error(raw),
            List::Calls => Self::Call(serde_json::from_str(text)?),
            List::Echoes => Self::Echo(serde_json::from_str(text)?),
            List::Preferences => Self::Preference(serde_json::from_str(text)?),
        })
    }

    /// From a change that is one event as a whole.
    pub fn of_change(field: &str, value: &'a RawValue) -> Self {
        if field != HANDOVERS {
            return Self::Whole;
        }
        serde_json::from_str(value.get()).map_or(Self::Whole, Self::Handover)
    }

    /// For metrics and shedding.
    pub fn piece_kind(&self, field: &str) -> PieceKind {
        match self {
            Self::Message(message) => match message.kind.as_deref() {
                Some("reaction") => PieceKind::Reaction,
                Some("system") => PieceKind::Other,
                Some(_) | None => PieceKind::Message,
            },
            Self::Echo(_) => PieceKind::Message,
            Self::Status(_) => PieceKind::Status,
            Self::Error(_) => PieceKind::Account,
            Self::Call(_) | Self::Preference(_) | Self::Handover(_) => PieceKind::Other,
            Self::Whole if is_account_field(field) || is_template_field(field) => PieceKind::Account,
            Self::Whole => PieceKind::Other,
        }
    }
}
