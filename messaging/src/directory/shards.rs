//! A map that is cheap to copy: two copies share all but what was changed since.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Parts of a map. A change copies one of them: of 3,000 entries about a dozen.
const PARTS: usize = 256;

type Part<K, V> = HashMap<K, V, RandomState>;

/// A map of [`PARTS`] maps, each copied when it is changed and somebody else holds it too.
#[derive(Debug, Clone)]
pub(crate) struct Shards<K, V> {
    hasher: RandomState,
    parts: Vec<Arc<Part<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        // One empty part for all: an empty map costs one allocation.
        let empty = Arc::new(Part::default());
        Self { hasher: RandomState::default(), parts: vec![empty; PARTS] }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Shards<K, V> {
    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The high bits: the maps inside use the low ones of their own hash.
        (self.hasher.hash_one(key) >> 56) as usize % PARTS
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.parts[self.place(key)].get(key)
    }

    /// Puts a value, and gives the one before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        Arc::make_mut(&mut self.parts[place]).insert(key, value)
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key)?;
        let place = self.place(key);
        Arc::make_mut(&mut self.parts[place]).remove(key)
    }

    /// The entry of a key, made when it is not there.
    pub(crate) fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let place = self.place(&key);
        Arc::make_mut(&mut self.parts[place]).entry(key).or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_showed() {
        let mut map: Shards<u32, u32> = Shards::default();
        for number in 0..3000 {
            map.insert(number, number);
        }
        let before = map.clone();
        map.insert(7, 70);
        *map.entry(8) += 1;
        assert_eq!(map.remove(&9), Some(9));
        assert_eq!(map.remove(&9), None);
        map.insert(5000, 1);
        assert_eq!((map.get(&7), map.get(&8), map.get(&9), map.values().count()), (Some(&70), Some(&9), None, 3000));
        assert_eq!((before.get(&7), before.get(&8), before.get(&9), before.values().count()), (Some(&7), Some(&8), Some(&9), 3000));
        let shared = map.parts.iter().zip(&before.parts).filter(|(now, then)| Arc::ptr_eq(now, then)).count();
        assert!(shared >= PARTS - 4, "{shared} of {PARTS} parts are shared");
    }
}
