//! What is wrong with a configuration, where, and the cure: all of it at once, in the style of a compiler.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::metrics::RunMode;

/// Words in a key whose value is never shown.
const SECRET_WORDS: &[&str] = &["pepper", "secret", "password", "token"];

/// Whether a key holds a secret itself. The name of a file that holds one is no secret.
pub(super) fn is_secret(key: &str) -> bool {
    !key.ends_with("_file") && SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters are meant.
    width: usize,
    /// The line, with the value of a secret blanked.
    text: String,
}

impl Place {
    /// The place of a byte range in a file's text.
    pub(super) fn new(file: &Path, source: &str, span: Range<usize>) -> Self {
        let start = span.start.min(source.len());
        let before = source.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = source.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
        let end = span.end.clamp(start, line_start + line.len()).max(start);
        let width = source.get(start..end).map_or(1, |meant| meant.chars().count().max(1));
        let column = source.get(line_start..start).map_or(1, |left| left.chars().count() + 1);
        Self { file: file.to_owned(), line: before.matches('\n').count() + 1, column, width, text: blank_secret(line) }
    }
}

/// Leaves the value of a line out when its key names a secret.
fn blank_secret(line: &str) -> String {
    match line.split_once('=') {
        Some((key, _)) if is_secret(key.trim()) => format!("{key}= (secret)"),
        Some(_) | None => line.to_owned(),
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    /// What the run mode sets.
    Mode(RunMode),
    /// A file.
    File(Arc<Place>),
    /// An environment variable, by name.
    Environment(String),
    /// The command line.
    Flag,
}

impl Origin {
    /// Later layers beat earlier ones.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::Mode(_) => 1,
            Self::File(_) => 2,
            Self::Environment(_) => 3,
            Self::Flag => 4,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Mode(mode) => write!(f, "default of {}", mode.name()),
            Self::File(place) => write!(f, "{}:{}:{}", place.file.display(), place.line, place.column),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// What.
    pub message: String,
    /// The cure.
    pub help: String,
    /// Where it was said.
    pub origin: Origin,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "  --> {}", self.origin)?;
        if let Origin::File(place) = &self.origin {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            let tabs_kept: String = place.text.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, " {margin} |")?;
            writeln!(f, " {number} | {}", place.text)?;
            writeln!(f, " {margin} | {tabs_kept}{}", "^".repeat(place.width))?;
        }
        write!(f, "  = help: {}", self.help)
    }
}

/// Everything that is wrong with a configuration. Exit code 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigFault>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{fault}\n")?;
        }
        match self.0.len() {
            1 => f.write_str("the configuration is refused"),
            count => write!(f, "the configuration is refused: {count} errors"),
        }
    }
}

impl std::error::Error for ConfigErrors {}
