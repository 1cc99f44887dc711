//! Our id of a message as Discord's nonce, and back. A nonce has at most 25 characters; our ids as text are longer, so their bits
//! stand in it, behind two letters that say whose they are.

use data_encoding::BASE64URL_NOPAD;

use crate::ids::MessageId;

/// Tells our nonces from those of other programs of the same bot.
const PREFIX: &str = "tl";

/// The nonce of a message; none when the text is no id of ours.
pub(super) fn of(message: &str) -> Option<String> {
    let id: MessageId = message.parse().ok()?;
    Some(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(id.bytes())))
}

/// The message of a nonce; none when it is not one of ours.
pub(super) fn message(nonce: &str) -> Option<MessageId> {
    let bits = BASE64URL_NOPAD.decode(nonce.strip_prefix(PREFIX)?.as_bytes()).ok()?;
    bits.try_into().ok().map(MessageId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_short_and_leads_back() {
        for bits in [[0; 16], [0xff; 16], *b"0123456789abcdef"] {
            let id = MessageId(bits);
            let nonce = of(&id.to_string()).unwrap();
            assert!(nonce.len() <= 25, "{nonce}");
            assert_eq!(message(&nonce), Some(id));
        }
        for foreign in ["", "gw-0001", "1440000000000000555", "tl", "tlAAAA", "tl\u{e4}AAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(message(foreign), None, "{foreign}");
        }
        assert_eq!(of("no id"), None);
    }
}
