//! Whom an event concerns: the handle that keys its conversation, all handles that it names, and the API's form of them.
//!
//! Phone first: most webhooks carry the phone and sends go to it; the router keeps the other handles as aliases. Ids are
//! told apart by shape, since a business-scoped user id (BSUID) may stand where a phone is expected.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::wire::{Event, Message, StatusNews, Str};
use crate::channels::{ContactInfo, Fault};
use crate::content::Handle;

/// Shortest and longest phone number, in digits (E.164).
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// Longest BSUID after its country, in characters.
const BSUID_CHARS_MAX: usize = 128;
/// Longest group id that the API takes, in bytes.
const GROUP_BYTES_MAX: usize = 256;

/// What `contacts` says of a person.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Contact<'a> {
    #[serde(borrow)]
    wa_id: Option<Str<'a>>,
    #[serde(borrow)]
    user_id: Option<Str<'a>>,
    #[serde(borrow)]
    profile: Option<Profile<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Profile<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    username: Option<Str<'a>>,
}

/// The entries of `contacts`, found by id and never by place.
pub(super) struct People<'a> {
    contacts: Vec<(Contact<'a>, &'a RawValue)>,
    by_id: HashMap<Cow<'a, str>, usize, foldhash::fast::RandomState>,
}

impl<'a> People<'a> {
    /// From the raw list. Entries that are no contacts match nobody.
    pub fn of(raw: Option<&'a RawValue>) -> Self {
        let list: Vec<&RawValue> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let contacts: Vec<(Contact<'a>, &'a RawValue)> =
            list.into_iter().filter_map(|raw| Some((serde_json::from_str(raw.get()).ok()?, raw))).collect();
        let mut by_id = HashMap::default();
        for (place, (contact, _)) in contacts.iter().enumerate() {
            for id in [&contact.wa_id, &contact.user_id].into_iter().flatten().filter(|id| !id.is_empty()) {
                by_id.entry(Cow::Owned(canonical(id).into_owned())).or_insert(place);
            }
        }
        Self { contacts, by_id }
    }

    /// The entry that has one of the ids.
    pub fn find(&self, ids: &Ids<'_>) -> Option<(&Contact<'a>, &'a RawValue)> {
        if !ids.has_contact {
            return None;
        }
        let place = ids.named().find_map(|id| self.by_id.get(&*canonical(id)))?;
        let (contact, raw) = &self.contacts[*place];
        Some((contact, raw))
    }
}

/// The ids that an event names for its person, the phone's member first.
#[derive(Debug)]
pub(super) struct Ids<'a> {
    /// The group that it happened in: then the conversation is the group's, and the person takes part in it.
    group: Option<&'a str>,
    ids: [Option<&'a str>; 2],
    /// Whether `contacts` speaks of the same person as the ids do.
    has_contact: bool,
}

impl<'a> Ids<'a> {
    fn of_person(phone: Option<&'a Str<'_>>, user: Option<&'a Str<'_>>) -> Self {
        Self { group: None, ids: [text(phone), text(user)], has_contact: true }
    }

    fn of_message(message: &'a Message<'_>, previous_user_id: Option<&'a str>) -> Self {
        let Some(system) = message.system_part().filter(|system| system.is_rekeying()) else {
            let person = Self::of_person(message.from.as_ref(), message.from_user_id.as_ref());
            return Self { group: text(message.group_id.as_ref()), ..person };
        };
        // The person as we knew them. What the message or `contacts` says beside may already be the new id.
        let beside = message.from_user_id.as_deref().filter(|id| Some(*id) != system.user_id.as_deref());
        let user = previous_user_id.or(beside).filter(|id| !id.is_empty());
        Self { group: None, ids: [text(message.from.as_ref()), user], has_contact: false }
    }

    fn of_status(status: &'a StatusNews<'_>) -> Self {
        if status.recipient_type.as_deref() != Some("group") {
            return Self::of_person(status.recipient_id.as_ref(), status.recipient_user_id.as_ref());
        }
        let participant = Self::of_person(status.recipient_participant_id.as_ref(), status.recipient_participant_user_id.as_ref());
        Self { group: text(status.recipient_id.as_ref()), ..participant }
    }

    /// Calls `use_ids` with the ids of an event's person. (Some are borrowed from a part that is only read for this.)
    pub fn of<R>(event: &Event<'_>, use_ids: impl FnOnce(&Ids<'_>) -> R) -> R {
        match event {
            Event::Message(message) => {
                let system = message.system_part();
                let previous = system.as_ref().and_then(|system| system.previous_user_id.as_deref());
                use_ids(&Ids::of_message(message, previous))
            }
            Event::Echo(echo) => {
                let person = Ids::of_person(echo.to.as_ref(), echo.to_user_id.as_ref());
                use_ids(&Ids { group: text(echo.group_id.as_ref()), ..person })
            }
            Event::Status(status) => use_ids(&Ids::of_status(status)),
            Event::Call(call) if call.is_ours() => use_ids(&Ids::of_person(call.to.as_ref(), call.to_user_id.as_ref())),
            Event::Call(call) => use_ids(&Ids::of_person(call.from.as_ref(), call.from_user_id.as_ref())),
            Event::Preference(wish) => use_ids(&Ids::of_person(wish.wa_id.as_ref(), wish.user_id.as_ref())),
            Event::Handover(handover) => use_ids(&Ids::of_person(handover.sender.phone_number.as_ref(), handover.sender.user_id.as_ref())),
            Event::Error(_) | Event::Whole => use_ids(&Ids { group: None, ids: [None; 2], has_contact: false }),
        }
    }

    fn named(&self) -> impl Iterator<Item = &'a str> {
        self.ids.into_iter().flatten()
    }

    /// The key, where it is known without a look at `contacts`.
    pub fn key_by_itself(&self) -> Option<Handle> {
        let known = self.group.is_some() || !self.has_contact || self.named().any(is_phone);
        known.then(|| self.key(None))
    }

    /// The handle that the conversation's key is computed from: always the first of `handles`.
    pub fn key(&self, contact: Option<&Contact<'_>>) -> Handle {
        if let Some(group) = self.group {
            return Handle::group(group);
        }
        let ids = || self.named().chain(contact_ids(contact));
        match ids().find(|id| is_phone(id)).or_else(|| ids().next()) {
            Some(id) => handle_of(id),
            None => Handle::account(),
        }
    }

    /// The key of an event whose `contacts` are still raw.
    pub fn key_with(&self, contacts: Option<&RawValue>) -> Handle {
        if let Some(key) = self.key_by_itself() {
            return key;
        }
        let people = People::of(contacts);
        self.key(people.find(self).map(|(contact, _)| contact))
    }

    /// All handles of the conversation, phones first. A group has one: its participants' handles are those of other conversations,
    /// and must not become other names of this one.
    pub fn handles(&self, contact: Option<&Contact<'_>>) -> Vec<Handle> {
        if let Some(group) = self.group {
            return vec![Handle::group(group)];
        }
        self.person_handles(contact)
    }

    fn person_handles(&self, contact: Option<&Contact<'_>>) -> Vec<Handle> {
        let mut handles = Vec::with_capacity(2);
        for phones in [true, false] {
            for id in self.named().chain(contact_ids(contact)).filter(|id| is_phone(id) == phones) {
                let handle = handle_of(id);
                if !handles.contains(&handle) {
                    handles.push(handle);
                }
            }
        }
        if handles.is_empty() {
            handles.push(Handle::account());
        }
        handles
    }

    /// What is said of the person; of a group's participant nothing, since the contact is the group.
    pub fn info(&self, contact: Option<&Contact<'_>>) -> ContactInfo {
        let handles = self.handles(contact);
        let profile = if self.group.is_some() { None } else { contact.and_then(|contact| contact.profile.as_ref()) };
        let name = profile.and_then(|profile| owned(profile.name.as_ref()));
        let username = profile.and_then(|profile| owned(profile.username.as_ref()));
        ContactInfo { handles, name, username, via: None, via_for: None }
    }

    /// The group and who in it, for subscribers.
    pub fn add_group(&self, contact: Option<&Contact<'_>>, context: &mut Map<String, Value>) {
        let Some(group) = self.group else { return };
        context.insert("group_id".into(), group.into());
        let mut participant = Map::new();
        for handle in self.person_handles(contact) {
            if let Value::Object(member) = recipient_json(&handle) {
                participant.extend(member);
            }
        }
        let profile = contact.and_then(|contact| contact.profile.as_ref());
        for (key, value) in [("name", profile.and_then(|p| p.name.as_ref())), ("username", profile.and_then(|p| p.username.as_ref()))] {
            if let Some(value) = owned(value) {
                participant.insert(key.into(), value.into());
            }
        }
        if !participant.is_empty() {
            context.insert("participant".into(), participant.into());
        }
    }
}

fn text<'a>(id: Option<&'a Str<'_>>) -> Option<&'a str> {
    id.map(|id| &**id).filter(|id| !id.is_empty())
}

fn owned(value: Option<&Str<'_>>) -> Option<String> {
    text(value).map(str::to_owned)
}

fn contact_ids<'c>(contact: Option<&'c Contact<'_>>) -> impl Iterator<Item = &'c str> {
    contact.into_iter().flat_map(|contact| [text(contact.wa_id.as_ref()), text(contact.user_id.as_ref())]).flatten()
}

/// Digits, perhaps written with a plus sign and separators. (No BSUID: that has letters.)
pub(super) fn is_phone(id: &str) -> bool {
    let mut digits = 0;
    for byte in id.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'+' | b' ' | b'-' | b'.' | b'(' | b')' => {}
            _ => return false,
        }
    }
    digits > 0
}

/// `CC.` and letters or digits.
fn is_bsuid(id: &str) -> bool {
    let Some((country, rest)) = id.split_once('.') else { return false };
    country.len() == 2
        && country.bytes().all(|byte| byte.is_ascii_uppercase())
        && (1..=BSUID_CHARS_MAX).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The handle of a webhook's id. What is no phone is a user id, of whatever shape it comes to have.
pub(super) fn handle_of(id: &str) -> Handle {
    if id.bytes().all(|byte| byte.is_ascii_digit()) {
        // Already in its normal form, as nearly all are.
        return Handle::new("phone", id);
    }
    if is_phone(id) { Handle::phone(id) } else { Handle::bsuid(id) }
}

/// One spelling for one id.
fn canonical(id: &str) -> Cow<'_, str> {
    if !is_phone(id) || id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(id.chars().filter(char::is_ascii_digit).collect())
}

/// The handle of `{"phone"}`, `{"bsuid"}` or `{"group"}`.
pub(super) fn recipient(to: &Map<String, Value>) -> Result<Handle, Fault> {
    let mut members = to.iter();
    let (Some((name, value)), None) = (members.next(), members.next()) else {
        return Err(Fault::new("", "needs exactly one of phone, bsuid and group"));
    };
    let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    if !matches!(name.as_str(), "phone" | "bsuid" | "group") {
        return Err(Fault::new(pointer, "is not known here: use phone, bsuid or group"));
    }
    let Some(value) = value.as_str() else {
        return Err(Fault::new(pointer, "must be text"));
    };
    let handle = match name.as_str() {
        "phone" => phone(value),
        "bsuid" => bsuid(value),
        _ => group(value),
    };
    handle.map_err(|detail| Fault::new(pointer, detail))
}

/// The handle of a phone number or BSUID by itself.
pub(super) fn short_recipient(to: &str) -> Result<Handle, Fault> {
    let to = to.trim();
    let handle = if to.starts_with(|first: char| first == '+' || first.is_ascii_digit()) {
        phone(to)
    } else if is_bsuid(to) {
        bsuid(to)
    } else {
        Err("must be a phone number with its country code, such as +15550100, or a business-scoped user id, such as US.1349")
    };
    handle.map_err(|detail| Fault::new("", detail))
}

fn phone(number: &str) -> Result<Handle, &'static str> {
    let plus_inside = number.rfind('+').is_some_and(|place| place > 0);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if !is_phone(number) || plus_inside || !PHONE_DIGITS.contains(&digits) {
        return Err("must be a phone number of 7 to 15 digits with its country code, such as +15550100");
    }
    if number.trim_start_matches(|first: char| !first.is_ascii_digit()).starts_with('0') {
        return Err("must begin with the country code, which never begins with 0");
    }
    Ok(Handle::phone(number))
}

fn bsuid(id: &str) -> Result<Handle, &'static str> {
    if is_bsuid(id) {
        return Ok(Handle::bsuid(id));
    }
    if id.get(2..).is_some_and(|rest| rest.starts_with(".ENT.")) {
        return Err("is a parent user id, which cannot be written to");
    }
    Err("must be a business-scoped user id: two capital letters, a dot, letters and digits, such as US.1349")
}

fn group(id: &str) -> Result<Handle, &'static str> {
    if id.is_empty() || id.len() > GROUP_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be a group id of 1 to 256 visible ASCII characters");
    }
    Ok(Handle::group(id))
}

/// The API's `to` object.
pub(super) fn recipient_json(handle: &Handle) -> Value {
    match handle.scheme() {
        "phone" => json!({"phone": format!("+{}", handle.value())}),
        "bsuid" => json!({"bsuid": handle.value()}),
        "group" => json!({"group": handle.value()}),
        _ => Value::Null,
    }
}
