//! The mark that every test message carries in its text, so that the checker can tell at the other end which one it is.
//!
//! `tlm`, `i` (from a customer) or `o` (a merchant's send), then run, conversation and sequence, each as eight lowercase hex
//! digits: 28 bytes of fixed width, so that a prepared body can be patched in place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which way a marked message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A customer wrote it.
    In,
    /// A merchant sent it.
    Out,
}

/// The identity of a test message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Which way.
    pub way: Way,
    /// The run: messages of other runs are strangers.
    pub run: u32,
    /// The conversation, as the test counts them.
    pub conversation: u32,
    /// Its number in the conversation.
    pub sequence: u32,
}

impl Mark {
    /// Bytes of a mark's text.
    pub const BYTES: usize = 28;
    const PREFIX: &'static [u8] = b"tlm";

    /// A customer's message.
    pub fn inbound(run: u32, conversation: u32, sequence: u32) -> Self {
        Self { way: Way::In, run, conversation, sequence }
    }

    /// A merchant's send.
    pub fn outbound(run: u32, conversation: u32, sequence: u32) -> Self {
        Self { way: Way::Out, run, conversation, sequence }
    }

    /// Writes the text over the first `BYTES` bytes of `out`, which must be there.
    pub fn write(&self, out: &mut [u8]) {
        out[..3].copy_from_slice(Self::PREFIX);
        out[3] = match self.way {
            Way::In => b'i',
            Way::Out => b'o',
        };
        write_hex(&mut out[4..12], self.run);
        write_hex(&mut out[12..20], self.conversation);
        write_hex(&mut out[20..28], self.sequence);
    }

    /// The first mark in some bytes.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let last = bytes.len().checked_sub(Self::BYTES)?;
        let mut at = 0;
        while at <= last {
            // One comparison a byte: this runs for every delivery of a load run.
            if bytes[at] == b't'
                && bytes[at..].starts_with(Self::PREFIX)
                && let Some(mark) = Self::read(&bytes[at..at + Self::BYTES])
            {
                return Some(mark);
            }
            at += 1;
        }
        None
    }

    fn read(text: &[u8]) -> Option<Self> {
        let way = match text[3] {
            b'i' => Way::In,
            b'o' => Way::Out,
            _ => return None,
        };
        Some(Self { way, run: read_hex(&text[4..12])?, conversation: read_hex(&text[12..20])?, sequence: read_hex(&text[20..28])? })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; Self::BYTES];
        self.write(&mut text);
        f.write_str(std::str::from_utf8(&text).expect("a mark is ASCII"))
    }
}

/// Writes a number as eight lowercase hex digits.
pub fn write_hex(out: &mut [u8], value: u32) {
    for (place, digit) in out[..8].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (28 - 4 * place) & 0xf) as usize];
    }
}

fn read_hex(text: &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for &digit in text {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u32::from(nibble);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_where_they_stand_and_nowhere_else() {
        let mark = Mark::inbound(0xdead_beef, 42, 7);
        assert_eq!(mark.to_string(), "tlmideadbeef0000002a00000007");
        assert_eq!(Mark::find(format!("{{\"a\":\"tlm tlmi {mark}\"}}").as_bytes()), Some(mark));
        let out = Mark::outbound(1, 2, 3);
        assert_eq!(Mark::find(out.to_string().as_bytes()), Some(out));
        for none in ["", "tlm", "hello", &mark.to_string()[..27], &mark.to_string().to_uppercase(), "tlmxdeadbeef0000002a00000007"] {
            assert_eq!(Mark::find(none.as_bytes()), None, "{none}");
        }
    }
}
