//! A configuration together with what it came from: for `trunkline config` and for reloads.

use std::fmt::Write as _;

use toml::Value;

use super::Config;
use super::fault::{ConfigFault, Origin, is_secret};
use super::source::{self, DEFAULTS, Setting, Settings};

/// Marks a key in defaults.toml that changes without a restart.
const LIVE_MARK: &str = "(live)";

/// A validated configuration that knows where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    settings: Settings,
}

/// A setting as it is in effect. Secrets are left out of `value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Its full key.
    pub key: String,
    /// Its value in TOML, redacted.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// Whether it changes on reload.
    pub live: bool,
}

/// A setting that two loads have differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its full key.
    pub key: String,
    /// Whether it changes on reload; otherwise the node must be restarted.
    pub live: bool,
}

impl Loaded {
    pub(super) fn new(config: Config, settings: Settings) -> Self {
        Self { config, settings }
    }

    /// Every setting, by key.
    pub fn effective(&self) -> Vec<Effective> {
        let effective = |(key, setting): (&String, &Setting)| Effective {
            key: key.clone(),
            value: redacted(key, &setting.value),
            origin: setting.origin.clone(),
            live: is_live(key),
        };
        self.settings.iter().map(effective).collect()
    }

    /// The effective settings as a TOML file; a comment says where a value came from that is not the default. Secrets are left out.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in keys_in_file_order() {
            let (Some(setting), Some((table, name))) = (self.settings.get(key), key.rsplit_once('.')) else { continue };
            if table != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(out, "{gap}[{table}]");
                section = table;
            }
            let value = redacted(key, &setting.value);
            let _ = match &setting.origin {
                Origin::Default => writeln!(out, "{name} = {value}"),
                origin => writeln!(out, "{name} = {value}  # {origin}"),
            };
        }
        out
    }

    /// What a key means, its default, its value and where that came from.
    ///
    /// # Errors
    /// There is no such key; the fault has a suggestion.
    pub fn explain(&self, key: &str) -> Result<String, ConfigFault> {
        let mut out = help(key)?;
        if let Some(setting) = self.settings.get(key) {
            let _ = write!(out, "\nvalue    {}\nfrom     {}", redacted(key, &setting.value), setting.origin);
        }
        Ok(out)
    }

    /// What a newer load has differently.
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        let differs = |(key, setting): &(&String, &Setting)| newer.settings.get(*key).is_none_or(|newer| newer.value != setting.value);
        self.settings.iter().filter(differs).map(|(key, _)| Change { key: key.clone(), live: is_live(key) }).collect()
    }
}

/// What a key means and its default, without a configuration.
///
/// # Errors
/// There is no such key; the fault has a suggestion.
pub fn help(key: &str) -> Result<String, ConfigFault> {
    let Some(default) = source::defaults().get(key) else { return Err(source::unknown(key, Origin::Flag)) };
    let text = comment(key).replace(LIVE_MARK, "");
    let live = if is_live(key) { "changes on reload" } else { "needs a restart" };
    let environment = format!("{}{}", source::ENVIRONMENT_PREFIX, key.to_ascii_uppercase().replace('.', "__"));
    Ok(format!("{key}\n{}\n\ndefault  {}\nsets     {environment}\nchange   {live}", text.trim(), default.value))
}

fn is_live(key: &str) -> bool {
    comment(key).contains(LIVE_MARK)
}

/// The value in TOML, without secrets and without the credentials of an address.
fn redacted(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if is_secret(key) && !text.is_empty() => "\"(secret)\"".to_owned(),
        Value::String(text) if text.contains("://") && text.contains('@') => "\"(address with credentials)\"".to_owned(),
        value => value.to_string(),
    }
}

/// The comment above a key in defaults.toml.
fn comment(key: &str) -> String {
    let mut text: Vec<&str> = Vec::new();
    let mut section = "";
    for line in DEFAULTS.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            text.push(comment.trim());
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ")
            && key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(name)
        {
            return text.join(" ");
        }
        text.clear();
    }
    String::new()
}

/// The keys as defaults.toml has them, so that what is printed reads like it.
fn keys_in_file_order() -> Vec<&'static str> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let found =
                source::defaults().keys().find(|key| key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(name));
            keys.extend(found.map(String::as_str));
        }
    }
    keys
}
