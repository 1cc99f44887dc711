//! Places where a test can make a shard panic. No setting leads here: a node never plants any.

use std::fmt;
use std::sync::Arc;

use messaging::ids::ConversationId;

/// Where in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// A record's body is read.
    Parse,
    /// A record is decided.
    Decide,
    /// A task finds its place.
    Place,
    /// A step's rows are written.
    Apply,
    /// A task has ended at its lane.
    End,
    /// A row in `later` becomes a task again, or a timer fires.
    Later,
    /// A delivery is taken up at the beginning of a shard.
    Recover,
}

impl FaultPoint {
    /// All.
    pub const ALL: [Self; 7] = [Self::Parse, Self::Decide, Self::Place, Self::Apply, Self::End, Self::Later, Self::Recover];
}

type Plant = Arc<dyn Fn(FaultPoint, ConversationId) + Send + Sync>;

/// What a test has planted.
#[derive(Clone, Default)]
pub struct Faults(Option<Plant>);

impl Faults {
    /// Called at each of the places, with the conversation that is worked on.
    pub fn plant(plant: impl Fn(FaultPoint, ConversationId) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(plant)))
    }

    /// Here one may be planted.
    pub(crate) fn at(&self, point: FaultPoint, conversations: impl IntoIterator<Item = ConversationId>) {
        if let Some(plant) = &self.0 {
            conversations.into_iter().for_each(|conversation| plant(point, conversation));
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "planted" } else { "none" })
    }
}
