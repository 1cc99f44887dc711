//! The file that a running `trunkline dev` leaves, so that the other commands of the same user need no flags.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bits of a file's mode that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// What a running `trunkline dev` tells.
#[derive(Clone, Serialize, Deserialize)]
pub struct RuntimeFile {
    /// Base address of the API.
    pub url: String,
    /// API key.
    pub key: String,
    /// Base address of the admin listener.
    #[serde(default)]
    pub admin: String,
    /// The process.
    pub pid: u32,
    /// Accounts by channel.
    #[serde(default)]
    pub accounts: BTreeMap<String, String>,
    /// Where the catch-all inbox is shown.
    #[serde(default)]
    pub inbox: Option<String>,
}

impl std::fmt::Debug for RuntimeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeFile").field("url", &self.url).field("key", &"redacted").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Where the file of this user is.
pub fn runtime_file() -> PathBuf {
    place("trunkline-dev-", ".json")
}

/// A file of this user beside the runtime file.
pub fn place(before: &str, after: &str) -> PathBuf {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map_or_else(std::env::temp_dir, PathBuf::from);
    let user = std::env::var("USER").unwrap_or_default();
    let is_plain = !user.is_empty() && user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let user = if is_plain { user } else { "default".to_owned() };
    folder.join(format!("{before}{user}{after}"))
}

impl RuntimeFile {
    /// Writes the file for its owner alone, whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written, or another user's file is in the way.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self)?)
    }

    /// Reads the file. None when there is none, or when it is not trustworthy: in a folder that all may write, a file of another
    /// user would send this user's messages to a stranger.
    ///
    /// # Errors
    /// It is there but cannot be read.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(text) = read_private(path)? else { return Ok(None) };
        let file = serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(file))
    }

    /// Takes the file away if it is of process `pid`: a later process may have written its own.
    ///
    /// # Errors
    /// It is there but cannot be read or taken away.
    pub fn remove(path: &Path, pid: u32) -> io::Result<()> {
        match Self::read(path)? {
            Some(file) if file.pid == pid => fs::remove_file(path),
            Some(_) | None => Ok(()),
        }
    }
}

/// Writes a file with mode 0600 by way of a new file of its own, so that nobody can have it open or have put a link there.
pub fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Reads a regular file that belongs to this user and that nobody else can write; none for anything else.
pub fn read_private(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The portable way to learn who we are, without unsafe code.
    let own = tempfile::tempfile()?.metadata()?.uid();
    if !found.is_file() || found.uid() != own || found.mode() & OTHERS_WRITE != 0 {
        return Ok(None);
    }
    fs::read(path).map(Some)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_private_file_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.json");
        let accounts = BTreeMap::from([("whatsapp".to_owned(), "acc_1".to_owned())]);
        let file = RuntimeFile { url: "http://a".into(), key: "k".into(), admin: "http://b".into(), pid: 7, accounts, inbox: None };
        assert!(RuntimeFile::read(&path).unwrap().is_none());
        file.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(RuntimeFile::read(&path).unwrap().unwrap().accounts["whatsapp"], "acc_1");

        RuntimeFile::remove(&path, 8).unwrap();
        assert!(path.exists(), "another process's file stays");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(RuntimeFile::read(&path).unwrap().is_none(), "others could have written it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(RuntimeFile::read(&link).unwrap().is_none(), "a link may be anybody's");

        RuntimeFile::remove(&path, 7).unwrap();
        assert!(!path.exists());
        assert!(!format!("{file:?}").contains("\"k\""));
    }
}
