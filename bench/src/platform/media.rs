//! Files that simulated people send: kept by id, given out as each platform gives them out.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::http::{Reply, reply};
use crate::locked;

/// Files that one simulator keeps; beyond, none is taken.
const FILES_MAX: usize = 10_000;

/// A file that a person sends.
#[derive(Debug, Clone)]
pub struct PersonsFile {
    /// What the message calls it: `image`, `video`, `audio`, `document` or `sticker`.
    pub kind: &'static str,
    /// Its media type, as the platform says.
    pub mime_type: &'static str,
    /// Its name, where the person chose one.
    pub filename: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The files of one simulator.
#[derive(Default)]
pub(crate) struct Shelf {
    files: Mutex<HashMap<String, PersonsFile>>,
    next: AtomicU64,
    served: AtomicU64,
}

impl Shelf {
    /// Puts a file there; gives its id.
    pub fn put(&self, file: PersonsFile) -> String {
        let id = (900_000_000_000_000 + self.next.fetch_add(1, Ordering::Relaxed)).to_string();
        let mut files = locked(&self.files);
        if files.len() < FILES_MAX {
            files.insert(id.clone(), file);
        }
        id
    }

    /// A file.
    pub fn get(&self, id: &str) -> Option<PersonsFile> {
        locked(&self.files).get(id).cloned()
    }

    /// Takes a file away, as a platform does when its time is over.
    pub fn remove(&self, id: &str) {
        locked(&self.files).remove(id);
    }

    /// Takes all files away.
    pub fn clear(&self) {
        locked(&self.files).clear();
    }

    /// How often bytes were given out.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// The bytes, as an answer.
    pub fn give(&self, file: PersonsFile) -> Reply {
        self.served.fetch_add(1, Ordering::Relaxed);
        reply(200, file.mime_type, file.bytes)
    }
}
