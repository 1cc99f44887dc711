//! The texts of API keys and webhook secrets: random, with a prefix and, for keys, a checksum that secret scanners can match.

use data_encoding::BASE64;
use messaging::seal::{Secret, fill_random};

/// How an API key begins.
pub const KEY_PREFIX: &str = "tl_sk_";
/// How an endpoint's secret begins (Standard Webhooks).
pub const ENDPOINT_SECRET_PREFIX: &str = "whsec_";
/// Random characters of a key: 27 of 62 are 160.8 bits.
const KEY_RANDOM_CHARS: usize = 27;
/// Characters of the checksum: six of 62 hold 32 bits.
const CHECKSUM_CHARS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The largest multiple of 62 in a byte: what lies above would favour some characters.
const FAIR: u8 = 248;

/// Text of random letters and digits.
pub fn random_text(chars: usize) -> String {
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        let mut bytes = [0; 32];
        fill_random(&mut bytes);
        for byte in bytes.into_iter().filter(|byte| *byte < FAIR).take(chars - text.len()) {
            text.push(char::from(ALPHABET[usize::from(byte % 62)]));
        }
    }
    text
}

/// A new API key.
pub fn new_key() -> Secret {
    let mut text = format!("{KEY_PREFIX}{}", random_text(KEY_RANDOM_CHARS));
    let sum = checksum(&text);
    text.push_str(&sum);
    Secret::new(text)
}

/// Whether a text has the form of an API key and its checksum is right. Says nothing about whether the key exists.
pub fn is_sound(key: &str) -> bool {
    let wanted = KEY_PREFIX.len() + KEY_RANDOM_CHARS + CHECKSUM_CHARS;
    if key.len() != wanted || !key.starts_with(KEY_PREFIX) || !key[KEY_PREFIX.len()..].bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    let (body, sum) = key.split_at(wanted - CHECKSUM_CHARS);
    checksum(body) == sum
}

/// Six characters of base62 of the CRC-32 of a text, the most significant first.
fn checksum(text: &str) -> String {
    let mut rest = crc32(text.as_bytes());
    let mut chars = [b'0'; CHECKSUM_CHARS];
    for char in chars.iter_mut().rev() {
        *char = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    chars.iter().map(|byte| char::from(*byte)).collect()
}

/// CRC-32 (IEEE 802.3), bit by bit: keys are short and few.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ (0xEDB8_8320 * carry);
        }
    }
    !crc
}

/// A new secret of an endpoint: 32 random bytes.
pub fn new_endpoint_secret() -> Secret {
    let mut bytes = [0; 32];
    fill_random(&mut bytes);
    Secret::new(format!("{ENDPOINT_SECRET_PREFIX}{}", BASE64.encode(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(checksum("123456789"), {
            let mut rest = 0xCBF4_3926_u32;
            let mut text = Vec::new();
            for _ in 0..6 {
                text.push(char::from(ALPHABET[(rest % 62) as usize]));
                rest /= 62;
            }
            text.iter().rev().collect::<String>()
        });
    }

    #[test]
    fn keys_are_sound_and_any_change_shows() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let key = new_key();
            let text = key.expose().to_owned();
            assert!(is_sound(&text));
            assert!(seen.insert(text.clone()));
            for at in 0..text.len() {
                let mut bent = text.clone().into_bytes();
                bent[at] = if bent[at] == b'a' { b'b' } else { b'a' };
                assert!(!is_sound(&String::from_utf8(bent).unwrap()), "changed at {at}");
            }
        }
        for bad in ["", "tl_sk_", "Bearer", &"x".repeat(39), &"é".repeat(20)] {
            assert!(!is_sound(bad), "{bad}");
        }
    }

    #[test]
    fn endpoint_secrets_are_standard_webhooks_secrets() {
        let secret = new_endpoint_secret();
        let bytes = BASE64.decode(secret.expose().strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
        assert_eq!(bytes.len(), 32);
    }
}
