//! The sources of the workspace as text, for tests that hold rules over all of them.

use std::path::{Path, PathBuf};

/// Largest file that is looked into, in bytes: larger ones are data.
const TEXT_BYTES_MAX: u64 = 4 << 20;

pub struct File {
    /// From the root, with slashes.
    pub path: String,
    pub text: String,
}

impl File {
    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    pub fn is_test(&self) -> bool {
        let folder = |part: &str| matches!(part, "tests" | "benches" | "examples");
        self.path.split('/').any(folder) || self.path.ends_with("/tests.rs") || self.path.ends_with("/testing.rs")
    }
}

fn root() -> PathBuf {
    // At run time, so that the rules can be tried on another tree.
    let spine = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    spine.parent().expect("the spine stands in the workspace").to_owned()
}

/// Every text file of the workspace, without what builds leave behind.
pub fn files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of ours is readable") {
            let entry = entry.expect("a folder of ours is readable");
            let (path, kind) = (entry.path(), entry.file_type().expect("an entry has a type"));
            let name = entry.file_name();
            if kind.is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
                continue;
            }
            // In a second work tree `.git` is a file.
            if !kind.is_file() || name == ".git" || entry.metadata().is_ok_and(|meta| meta.len() > TEXT_BYTES_MAX) {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(&root).expect("found below the root").to_string_lossy().replace('\\', "/");
            found.push(File { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|file| file.path == "messaging/src/lib.rs"), "the sources were not found below {}", root.display());
    found
}

pub fn sources() -> Vec<File> {
    files().into_iter().filter(File::is_rust).collect()
}

/// Fails with one line per breach.
#[track_caller]
pub fn none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}
