//! `signed_request`: how Meta calls back when a person removes the app (deauthorise) or wants their data deleted.
//!
//! The gateway posts the raw form here with the account's verifier. Nothing in it is a nonce, so the same request may come again:
//! the recorder is idempotent by (account, [`SignedRequest::user`], [`SignedRequest::issued_at`]). The person named is the one who
//! connected the page, by an app-scoped id; it is no customer's PSID or IGSID.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use super::proof::{TAG_BYTES, parameter};
use crate::channels::{Answer, ChannelKind, Piece, PieceKind, Refusal, Verifier, any_mac_matches};
use crate::clock::Timestamp;
use crate::content::Handle;

/// Largest form that is read, in bytes.
pub const FORM_BYTES_MAX: usize = 16 * 1024;
/// The one algorithm that is taken.
const ALGORITHM: &str = "HMAC-SHA256";

/// What an authentic callback says. Personal data: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The app-scoped id of the person who had connected the account; empty for a page's own removal.
    pub user: String,
    /// The page that removed the app, when it was a page.
    pub profile: Option<String>,
    /// When it was made; `ZERO` when it does not say.
    pub issued_at: Timestamp,
}

impl std::fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignedRequest(redacted)")
    }
}

#[derive(Deserialize)]
struct Payload {
    algorithm: String,
    #[serde(default)]
    user_id: serde_json::Value,
    #[serde(default)]
    profile_id: serde_json::Value,
    #[serde(default)]
    issued_at: u64,
}

/// Reads and verifies the form body of a callback. An expired one is taken: it asks for a deletion that is due all the same.
///
/// # Errors
/// [`Refusal::Unauthentic`] when the signature is not the app's; [`Refusal::Malformed`] when there is none.
pub fn verify(form: &[u8], verifier: &Verifier) -> Result<SignedRequest, Refusal> {
    let Verifier::Meta { app_secrets, .. } = verifier else { return Err(Refusal::Unauthentic) };
    if form.len() > FORM_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let form = std::str::from_utf8(form).map_err(|_| Refusal::Malformed)?;
    let signed = parameter(form, "signed_request").ok_or(Refusal::Malformed)?;
    let signed = std::str::from_utf8(&signed).map_err(|_| Refusal::Malformed)?;
    let (signature, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
    // Some senders pad.
    let tag = BASE64URL_NOPAD.decode(signature.trim_end_matches('=').as_bytes()).map_err(|_| Refusal::Unauthentic)?;
    if tag.len() != TAG_BYTES || !any_mac_matches(app_secrets, payload.as_bytes(), &tag) {
        return Err(Refusal::Unauthentic);
    }
    let json = BASE64URL_NOPAD.decode(payload.trim_end_matches('=').as_bytes()).map_err(|_| Refusal::Malformed)?;
    let payload: Payload = serde_json::from_slice(&json).map_err(|_| Refusal::Malformed)?;
    if payload.algorithm != ALGORITHM {
        return Err(Refusal::Unauthentic);
    }
    let profile = id(&payload.profile_id);
    Ok(SignedRequest {
        user: id(&payload.user_id).unwrap_or_default(),
        profile,
        issued_at: payload.issued_at.checked_mul(1_000_000).map_or(Timestamp::ZERO, Timestamp),
    })
}

/// An id as text or number; none when it is 0 or nothing.
fn id(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
    .filter(|id| !id.is_empty() && id != "0")
}

/// Which of the two callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callback {
    /// A person wants their data deleted.
    DataDeletion,
    /// A person, or a page, removed the app.
    Deauthorize,
}

impl Callback {
    /// Its name: the kind of the `platform.event` that tells of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DataDeletion => "data_deletion",
            Self::Deauthorize => "deauthorize",
        }
    }
}

/// The scheme of the handle of the person who had connected the account.
pub(super) const CONNECTOR: &str = "connector";

/// What the callback says, as a piece for the log: a change of the account's product, so that its own parser reads it. Whose
/// data it is stands in it where the channel seals it with a key of that person (Messenger, Instagram); `code` always.
/// None: the account is no product of Meta's.
pub fn piece(channel: ChannelKind, callback: Callback, signed: &SignedRequest, code: &str) -> Option<Piece> {
    let (object, sealed) = match channel {
        ChannelKind::Messenger => ("page", true),
        ChannelKind::Instagram => ("instagram", true),
        ChannelKind::Whatsapp => ("whatsapp_business_account", false),
        ChannelKind::Telegram | ChannelKind::Tiktok | ChannelKind::Discord | ChannelKind::Email | ChannelKind::Woocommerce => return None,
    };
    let mut value = serde_json::json!({"confirmation_code": code, "issued_at": signed.issued_at.as_secs()});
    let user = Some(&signed.user).filter(|user| sealed && !user.is_empty());
    if let Some(user) = user {
        value["user_id"] = user.as_str().into();
    }
    if let Some(profile) = &signed.profile {
        value["profile_id"] = profile.as_str().into();
    }
    let handle = user.map_or_else(Handle::account, |user| Handle::new(CONNECTOR, user));
    let change = serde_json::json!({"field": callback.name(), "value": value});
    let body = serde_json::json!({"object": object, "entry": [{"id": "0", "time": signed.issued_at.as_secs(), "changes": [change]}]});
    Some(Piece::new(handle, PieceKind::Account, Bytes::from(body.to_string())))
}

/// The answer to a deletion request: where its state is shown, and the code of it.
pub fn deletion_answer(status_url: &str, code: &str) -> Answer {
    Answer::json(200, &serde_json::json!({ "url": status_url, "confirmation_code": code }))
}
