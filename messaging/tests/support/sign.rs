//! How each platform proves a request: what the account needs for it, and the headers of a body.

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use messaging::channels::ChannelKind;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;

use super::NOW;

/// Members of an account, or headers of a request.
pub type Pairs = Vec<(&'static str, String)>;

/// A MAC over the parts, in bytes.
pub fn mac(secret: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Discord's key of an account with this secret.
pub fn ed25519(secret: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&mac(secret, &[])).unwrap()
}

/// A request that is signed at `NOW`: the members of an account with this secret, and the headers of this body. E-mail's are the
/// bridge's.
pub fn signed(kind: ChannelKind, secret: &str, body: &[u8]) -> (Pairs, Pairs) {
    let time = NOW.as_secs().to_string();
    let t = time.as_bytes();
    let own = || secret.to_owned();
    match kind {
        ChannelKind::Whatsapp | ChannelKind::Messenger | ChannelKind::Instagram => {
            let tag = format!("sha256={}", HEXLOWER.encode(&mac(secret, &[body])));
            (vec![("app_secret", own()), ("verify_token", own())], vec![("x-hub-signature-256", tag)])
        }
        ChannelKind::Telegram => (vec![("secret_token", own())], vec![("x-telegram-bot-api-secret-token", own())]),
        ChannelKind::Tiktok => {
            let tag = HEXLOWER.encode(&mac(secret, &[t, b".", body]));
            (vec![("client_secret", own())], vec![("tiktok-signature", format!("t={time},s={tag}"))])
        }
        ChannelKind::Discord => {
            let key = ed25519(secret);
            let tag = HEXLOWER.encode(key.sign(&[t, body].concat()).as_ref());
            let members = vec![("public_key", HEXLOWER.encode(key.public_key().as_ref()))];
            (members, vec![("x-signature-ed25519", tag), ("x-signature-timestamp", time)])
        }
        ChannelKind::Email => {
            let tag = HEXLOWER.encode(&mac(secret, &[t, b".", body]));
            (vec![("provider", "bridge".to_owned()), ("secret", own())], vec![("x-gateway-signature", format!("t={time},v1={tag}"))])
        }
        ChannelKind::Woocommerce => {
            let tag = BASE64.encode(&mac(secret, &[body]));
            (vec![("webhook_secret", own())], vec![("x-wc-webhook-signature", tag), ("x-wc-webhook-topic", "order.created".to_owned())])
        }
    }
}
