//! The pieces of a conversation's newest platform time, in memory only: what is surely new need not be looked up.

use crate::ids::ID_BYTES;

/// Most pieces of one platform time that are remembered; what else came then is looked up.
const NEWEST_MAX: usize = 6;

/// All of them, while this process has seen that time begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Newest {
    is_whole: bool,
    count: u8,
    /// The first bytes of their ids.
    heads: [u64; NEWEST_MAX],
}

impl Newest {
    /// A time that begins: nothing came yet.
    pub(super) fn begun() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    pub(super) fn surely_lacks(&self, id: &[u8; ID_BYTES]) -> bool {
        self.is_whole && !self.heads[..usize::from(self.count)].contains(&head_of(id))
    }

    pub(super) fn add(&mut self, id: &[u8; ID_BYTES]) {
        match self.heads.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = head_of(id);
                self.count += 1;
            }
            None => self.is_whole = false,
        }
    }
}

fn head_of(id: &[u8; ID_BYTES]) -> u64 {
    u64::from_le_bytes(id[..8].try_into().expect("an id has 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::NEWEST_MAX;
    use crate::channels::ChannelKind;
    use crate::clock::Timestamp;
    use crate::content::Handle;
    use crate::ids::{AccountId, ContactId, ConversationId, ID_BYTES};
    use crate::seal::KEY_BYTES;
    use crate::state::Conversation;

    fn id(n: u8) -> [u8; ID_BYTES] {
        [n; ID_BYTES]
    }

    fn begun() -> Conversation {
        let (conversation, contact) = (ConversationId(id(1)), ContactId(id(2)));
        Conversation::new(conversation, AccountId(id(3)), ChannelKind::Whatsapp, contact, Handle::chat("1"), [0; KEY_BYTES])
    }

    #[test]
    fn what_is_surely_new_need_not_be_looked_up() {
        let second = Timestamp::from_secs;
        let mut state = begun();
        assert!(state.is_surely_new(second(5), &id(10)), "nothing was stored");
        state.note_stored(second(5), &id(10));
        let cases = [(4, 11, false, "older"), (5, 10, false, "seen"), (5, 11, true, "another of this second"), (6, 10, true, "later")];
        for (at, piece, expected, why) in cases {
            assert_eq!(state.is_surely_new(second(at), &id(piece)), expected, "{why}");
        }
        state.note_stored(second(4), &id(12));
        assert!(state.is_surely_new(second(5), &id(11)), "an older one changes nothing");
        for piece in 11..11 + NEWEST_MAX as u8 {
            state.note_stored(second(5), &id(piece));
        }
        assert!(!state.is_surely_new(second(5), &id(99)), "more than are remembered");
        state.note_stored(second(6), &id(99));
        assert!(state.is_surely_new(second(6), &id(10)), "a new second");
    }

    #[test]
    fn what_another_process_stored_in_this_second_is_not_known() {
        let mut state = begun();
        state.note_stored(Timestamp::from_secs(5), &id(10));
        let bytes = postcard::to_stdvec(&state).unwrap();
        let loaded: Conversation = postcard::from_bytes(&bytes).unwrap();
        assert!(!loaded.is_surely_new(Timestamp::from_secs(5), &id(11)));
        assert!(loaded.is_surely_new(Timestamp::from_secs(6), &id(11)));
    }
}
