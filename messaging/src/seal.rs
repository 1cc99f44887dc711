//! Encryption at rest. AES-256-GCM, associated data binds every value to its tenant, row and field, so that a value
//! moved to another place does not open.
//!
//! One root secret per installation (a file or a KMS). From it are derived: the id secret, the KEK that wraps tenant
//! keys, and the key of the log. A tenant's key is random, stored wrapped in its directory row; it seals rows and
//! credentials. A contact's key is random, stored in the contact's sealed conversation state; it seals message bodies,
//! so that destroying it erases them.
//!
//! Layout of a sealed value: `version (1) | salt (16) | counter (8) | ciphertext | tag (16)` for busy keys, where every
//! process derives a subkey of its own from a random salt and counts, so that no nonce ever repeats; and
//! `version (2) | nonce (12) | ciphertext | tag (16)` with a random nonce for a contact's key, which is used little.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::SecureRandom;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::IdHasher;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const COUNTED: u8 = 1;
const RANDOM: u8 = 2;
const COUNTED_HEAD: usize = 1 + SALT_BYTES + 8;
const RANDOM_HEAD: usize = 1 + NONCE_BYTES;
/// Bytes that sealing adds to a value, at most.
pub const OVERHEAD_BYTES: usize = COUNTED_HEAD + TAG_BYTES;
/// About the bytes of a packed value: a buffer of this size rarely grows, which would leave a plain copy behind.
const VALUE_BYTES: usize = 512;
/// Subkeys of other processes that a key remembers.
const READER_SUBKEYS_MAX: usize = 64;

/// A sealed value did not open: other key, other place, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed value does not open: wrong key, wrong place or damaged")]
pub struct OpenError;

thread_local! {
    static RANDOM_POOL: RefCell<(Zeroizing<[u8; 1024]>, usize)> = RefCell::new((Zeroizing::new([0; 1024]), 1024));
}

/// Fills a small buffer with random bytes of the operating system, drawn in blocks.
pub fn fill_random(out: &mut [u8]) {
    assert!(out.len() <= 256, "keys, nonces and ids only");
    RANDOM_POOL.with_borrow_mut(|(pool, used)| {
        if *used + out.len() > pool.len() {
            ring::rand::SystemRandom::new().fill(&mut pool[..]).expect("the operating system has random bytes");
            *used = 0;
        }
        let piece = &mut pool[*used..*used + out.len()];
        out.copy_from_slice(piece);
        piece.fill(0);
        *used += out.len();
    });
}

/// A random share, from 0 to 1.
pub fn random_unit() -> f64 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// A value of type `T`, sealed. Only a key can make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed<T> {
    bytes: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

// As bytes in one piece: byte by byte, a row of one KiB costs three microseconds more.
impl<T> Serialize for Sealed<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de, T> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sealed bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes).map(Self::from_stored)
    }
}

impl<T> Sealed<T> {
    /// The sealed bytes, to be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Into the sealed bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
    /// From stored bytes. Whether they are sealed shows when they are opened.
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self { bytes, of: PhantomData }
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.bytes.len())
    }
}

struct Subkey {
    salt: [u8; SALT_BYTES],
    key: LessSafeKey,
}

/// A key that seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct DataKey(Arc<KeyInner>);

struct KeyInner {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    /// Boxed: most contacts' keys seal without one, and it is large.
    writer: OnceLock<Box<(Subkey, AtomicU64)>>,
    readers: Mutex<Vec<Arc<Subkey>>>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(redacted)")
    }
}

impl DataKey {
    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Arc::new(KeyInner { bytes: Zeroizing::new(bytes), writer: OnceLock::new(), readers: Mutex::new(Vec::new()) }))
    }

    /// A new random key.
    pub fn generate() -> Self {
        let mut bytes = [0; KEY_BYTES];
        fill_random(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The key itself, to be wrapped under another.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0.bytes
    }

    fn subkey(&self, salt: [u8; SALT_BYTES]) -> Subkey {
        let derived = derive(&salt, &self.0.bytes[..], b"trunkline subkey");
        Subkey { salt, key: aes(&derived[..]) }
    }

    fn writer(&self) -> &(Subkey, AtomicU64) {
        self.0.writer.get_or_init(|| {
            let mut salt = [0; SALT_BYTES];
            fill_random(&mut salt);
            Box::new((self.subkey(salt), AtomicU64::new(0)))
        })
    }

    fn reader(&self, salt: [u8; SALT_BYTES]) -> Arc<Subkey> {
        let mut readers = self.0.readers.lock().expect("no holder of the subkeys panics");
        if let Some(found) = readers.iter().find(|subkey| subkey.salt == salt) {
            return found.clone();
        }
        let made = Arc::new(self.subkey(salt));
        if readers.len() == READER_SUBKEYS_MAX {
            readers.remove(0);
        }
        readers.push(made.clone());
        made
    }

    /// Seals with this process's subkey and counter. For keys that are used much (tenants, the log).
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        self.seal_written(aad, plain.len(), |mut out| {
            out.extend_from_slice(plain);
            out
        })
    }

    /// Seals what is written behind the head of the buffer, in place: of about so many bytes.
    fn seal_written(&self, aad: &[u8], about: usize, write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        let (subkey, counter) = self.writer();
        let count = counter.fetch_add(1, Ordering::Relaxed);
        let mut out = Vec::with_capacity(COUNTED_HEAD + about + TAG_BYTES);
        out.push(COUNTED);
        out.extend_from_slice(&subkey.salt);
        out.extend_from_slice(&count.to_be_bytes());
        let mut out = write(out);
        let tag = subkey
            .key
            .seal_in_place_separate_tag(counted_nonce(count), Aad::from(aad), &mut out[COUNTED_HEAD..])
            .expect("values are far below the cipher's limit");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Seals with a random nonce. For keys that are made often and used little (contacts).
    pub fn seal_once(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce);
        let mut out = Vec::with_capacity(RANDOM_HEAD + plain.len() + TAG_BYTES);
        out.push(RANDOM);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let tag = aes(&self.0.bytes[..])
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out[RANDOM_HEAD..])
            .expect("values are far below the cipher's limit");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens what `seal` or `seal_once` made with the same associated data.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        match sealed.first() {
            Some(&COUNTED) if sealed.len() >= COUNTED_HEAD + TAG_BYTES => {
                let salt: [u8; SALT_BYTES] = sealed[1..1 + SALT_BYTES].try_into().map_err(|_| OpenError)?;
                let count = u64::from_be_bytes(sealed[1 + SALT_BYTES..COUNTED_HEAD].try_into().map_err(|_| OpenError)?);
                if let Some(writer) = self.0.writer.get()
                    && writer.0.salt == salt
                {
                    return open_with(&writer.0.key, counted_nonce(count), aad, &sealed[COUNTED_HEAD..]);
                }
                open_with(&self.reader(salt).key, counted_nonce(count), aad, &sealed[COUNTED_HEAD..])
            }
            Some(&RANDOM) if sealed.len() >= RANDOM_HEAD + TAG_BYTES => {
                let nonce: [u8; NONCE_BYTES] = sealed[1..RANDOM_HEAD].try_into().map_err(|_| OpenError)?;
                open_with(&aes(&self.0.bytes[..]), Nonce::assume_unique_for_key(nonce), aad, &sealed[RANDOM_HEAD..])
            }
            _ => Err(OpenError),
        }
    }

    /// Seals a value in its compact form.
    pub fn seal_value<T: Serialize>(&self, aad: &[u8], value: &T) -> Sealed<T> {
        let write = |out| postcard::to_extend(value, out).expect("our own types serialise");
        Sealed::from_stored(self.seal_written(aad, VALUE_BYTES, write))
    }

    /// Opens a value.
    pub fn open_value<T: DeserializeOwned>(&self, aad: &[u8], sealed: &[u8]) -> Result<T, OpenError> {
        let plain = Zeroizing::new(self.open(aad, sealed)?);
        postcard::from_bytes(&plain).map_err(|_| OpenError)
    }
}

fn open_with(key: &LessSafeKey, nonce: Nonce, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut buffer = sealed.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(aad), &mut buffer).map_err(|_| OpenError)?.len();
    buffer.truncate(plain);
    Ok(buffer)
}

fn aes(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key has 32 bytes"))
}

fn counted_nonce(count: u64) -> Nonce {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out[..]))
        .expect("one block of output");
    out
}

/// The installation's keys, derived from its root secret.
#[derive(Clone)]
pub struct Keyring {
    kek: DataKey,
    log: DataKey,
    ids: IdHasher,
    cursor: DataKey,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(redacted)")
    }
}

impl Keyring {
    /// From the root secret.
    pub fn from_root(root: &[u8; KEY_BYTES]) -> Self {
        let key = |info: &[u8]| DataKey::from_bytes(*derive(b"trunkline v1", root, info));
        Self { kek: key(b"kek"), log: key(b"log"), cursor: key(b"cursor"), ids: IdHasher::new(&derive(b"trunkline v1", root, b"ids")[..]) }
    }

    /// The key that wraps tenant keys.
    pub fn kek(&self) -> &DataKey {
        &self.kek
    }
    /// The key that seals records on the log.
    pub fn log(&self) -> &DataKey {
        &self.log
    }
    /// The key that seals cursors handed to clients.
    pub fn cursor(&self) -> &DataKey {
        &self.cursor
    }
    /// Computes ids.
    pub fn ids(&self) -> &IdHasher {
        &self.ids
    }
}

/// A secret text (token, webhook secret). Never printed; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text itself: only for signing, comparing and calling.
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Equality in constant time for equal lengths.
    pub fn matches(&self, other: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), other).into()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_values_open_only_in_their_place() {
        let key = DataKey::generate();
        let other = DataKey::generate();
        for sealed in [key.seal(b"row 1", b"hello"), key.seal_once(b"row 1", b"hello")] {
            assert_eq!(key.open(b"row 1", &sealed).unwrap(), b"hello");
            assert_eq!(key.open(b"row 2", &sealed), Err(OpenError));
            assert_eq!(other.open(b"row 1", &sealed), Err(OpenError));
            for cut in 0..sealed.len() {
                assert_eq!(key.open(b"row 1", &sealed[..cut]), Err(OpenError));
            }
            for at in 0..sealed.len() {
                let mut bent = sealed.clone();
                bent[at] ^= 1;
                assert_eq!(key.open(b"row 1", &bent), Err(OpenError), "bit flip at {at}");
            }
        }
    }

    #[test]
    fn another_process_with_the_same_key_opens() {
        let key = DataKey::generate();
        let twin = DataKey::from_bytes(*key.expose());
        let sealed = key.seal(b"", b"x");
        assert_eq!(twin.open(b"", &sealed).unwrap(), b"x");
        assert_ne!(twin.seal(b"", b"x"), sealed, "each process has its own subkey");
    }

    #[test]
    fn secrets_do_not_print() {
        assert!(!format!("{:?}", Secret::new("tl_sk_1")).contains("tl_sk"));
    }
}
