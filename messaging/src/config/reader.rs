//! Takes typed values out of the settings. A value that does not fit becomes a fault, and reading goes on: every fault is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::fault::{ConfigFault, Origin, is_secret};
use super::source::Settings;
use super::values::{self, Wrong};

/// Reads settings and gathers faults.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    faults: &'a mut Vec<ConfigFault>,
    /// Keys that were asked for: with the keys of the defaults file, a test compares them.
    asked: BTreeSet<String>,
    /// Keys whose value did not fit: what stands in for them must not lead to faults of its own.
    faulty: BTreeSet<String>,
    /// The credentials folder of systemd.
    credentials: Option<PathBuf>,
}

fn shown(key: &str, value: &Value) -> String {
    if is_secret(key) { "the value".to_owned() } else { value.to_string() }
}

fn not(kind: &str, help: &str) -> Wrong {
    Wrong::new(format!("is not {kind}"), help)
}

impl<'a> Reader<'a> {
    pub fn new(settings: &'a Settings, faults: &'a mut Vec<ConfigFault>, credentials: Option<PathBuf>) -> Self {
        Self { settings, faults, asked: BTreeSet::new(), faulty: BTreeSet::new(), credentials }
    }

    /// The keys that were read.
    #[cfg(test)]
    pub fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }

    /// A fault of several keys together, shown at the one that was set last.
    pub fn refuse(&mut self, keys: &[&str], message: impl Into<String>, help: impl Into<String>) {
        if keys.iter().any(|key| self.faulty.contains(*key)) {
            return;
        }
        let origins = keys.iter().filter_map(|key| self.settings.get(*key)).map(|setting| &setting.origin);
        let origin = origins.max_by_key(|origin| origin.rank()).unwrap_or(&Origin::Default).clone();
        self.faults.push(ConfigFault { message: message.into(), help: help.into(), origin });
    }

    /// A value that does not fit.
    fn fault(&mut self, key: &str, message: String, help: String) {
        let origin = self.settings.get(key).map_or(Origin::Default, |setting| setting.origin.clone());
        self.faults.push(ConfigFault { message, help, origin });
        self.faulty.insert(key.to_owned());
    }

    /// Reads a key with a parser; `fallback` stands in after a fault.
    fn read<T>(&mut self, key: &str, fallback: T, parse: impl FnOnce(&Value) -> Result<T, Wrong>) -> T {
        self.asked.insert(key.to_owned());
        let setting = self.settings.get(key).unwrap_or_else(|| panic!("defaults.toml has every key, {key} too"));
        match parse(&setting.value) {
            Ok(value) => value,
            Err(wrong) => {
                let message = format!("`{key}`: {} {}", shown(key, &setting.value), wrong.what);
                self.fault(key, message, wrong.help);
                fallback
            }
        }
    }

    pub fn parsed<T>(&mut self, key: &str, fallback: T, expected: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> T {
        self.read(key, fallback, |value| match value {
            Value::String(text) => parse(text),
            _ => Err(not("a text", expected)),
        })
    }

    pub fn text(&mut self, key: &str) -> String {
        self.parsed(key, String::new(), "write a text in quotation marks", |text| Ok(text.to_owned()))
    }

    /// A text that must pass a check.
    pub fn checked(&mut self, key: &str, check: impl FnOnce(&str) -> Result<String, Wrong>) -> String {
        self.parsed(key, String::new(), "write a text in quotation marks", check)
    }

    pub fn flag(&mut self, key: &str) -> bool {
        self.read(key, false, |value| value.as_bool().ok_or_else(|| not("true or false", "write true or false, without quotation marks")))
    }

    pub fn count(&mut self, key: &str, range: RangeInclusive<u32>) -> u32 {
        self.read(key, *range.start(), |value| {
            let help = format!("write a whole number from {} to {}", range.start(), range.end());
            let number = value.as_integer().ok_or_else(|| not("a whole number", &help))?;
            let number = u32::try_from(number).ok().filter(|number| range.contains(number));
            number.ok_or_else(|| Wrong::new("is out of range", help))
        })
    }

    pub fn seed(&mut self, key: &str) -> u64 {
        self.read(key, 0, |value| {
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            number.ok_or_else(|| not("a whole number", "write a whole number from 0"))
        })
    }

    pub fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> f64 {
        self.read(key, *range.start(), |value| {
            let help = format!("write a number from {} to {}", range.start(), range.end());
            let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
            let number = number.ok_or_else(|| not("a number", &help))?;
            if range.contains(&number) { Ok(number) } else { Err(Wrong::new("is out of range", help)) }
        })
    }

    /// A duration of at least `least`.
    pub fn duration(&mut self, key: &str, least: Duration) -> Duration {
        self.parsed(key, least, "write a duration in quotation marks, such as \"5s\"", |text| {
            let duration = values::duration(text)?;
            if duration < least {
                return Err(Wrong::new("is too short", format!("write at least \"{}\"", values::show(least))));
            }
            Ok(duration)
        })
    }

    pub fn durations(&mut self, key: &str, most: usize) -> Vec<Duration> {
        let durations = self.list(key, values::duration);
        if durations.len() > most {
            self.refuse(&[key], format!("`{key}` has {} entries", durations.len()), format!("write at most {most}"));
        }
        durations
    }

    /// A size in bytes.
    pub fn size(&mut self, key: &str, range: RangeInclusive<u64>) -> u64 {
        self.parsed(key, *range.start(), "write a size in quotation marks, such as \"64MiB\"", |text| {
            let bytes = values::size(text)?;
            if !range.contains(&bytes) {
                return Err(Wrong::new("is out of range", format!("write a size from {} to {} bytes", range.start(), range.end())));
            }
            Ok(bytes)
        })
    }

    /// A rate in units a second.
    pub fn rate(&mut self, key: &str) -> f64 {
        self.parsed(key, 1.0, "write a rate in quotation marks, such as \"80/s\"", values::rate)
    }

    pub fn address(&mut self, key: &str) -> SocketAddr {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        self.parsed(key, nowhere, "write an address in quotation marks, such as \"127.0.0.1:8080\"", values::address)
    }

    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let help = one_of(choices);
        self.parsed(key, choices[0].1, &help, |text| pick(text, choices))
    }

    pub fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Vec<T> {
        let help = "write a list of texts, such as [\"…\", \"…\"]";
        let items = self.read(key, Vec::new(), |value| {
            let items = value.as_array().ok_or_else(|| not("a list", help))?;
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| not("a list of texts", help))).collect()
        });
        let mut parsed = Vec::with_capacity(items.len());
        for item in items {
            match parse(&item) {
                Ok(value) => parsed.push(value),
                Err(wrong) => self.fault(key, format!("`{key}`: \"{item}\" {}", wrong.what), wrong.help),
            }
        }
        parsed
    }

    /// A list without repetitions out of a closed set.
    pub fn choices<T: Copy + PartialEq>(&mut self, key: &str, choices: &[(&str, T)]) -> Vec<T> {
        let mut chosen = Vec::new();
        for value in self.list(key, |text| pick(text, choices)) {
            if !chosen.contains(&value) {
                chosen.push(value);
            }
        }
        chosen
    }

    /// A path; none when it is empty. `cred:NAME` is a file of the credentials folder.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let credentials = self.credentials.clone();
        self.parsed(key, None, "write a path in quotation marks", |text| {
            let Some(name) = text.strip_prefix("cred:") else {
                return Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from));
            };
            let folder = credentials.ok_or_else(|| {
                Wrong::new("needs a credentials folder", "start this as a systemd unit with LoadCredential=, or name a file")
            })?;
            if name.is_empty() || name.contains(['/', '\\']) || name == ".." {
                return Err(Wrong::new("is no credential's name", "write \"cred:\" and the name that LoadCredential= gave it"));
            }
            Ok(Some(folder.join(name)))
        })
    }

    /// A table of names to texts; tables inside it become names with dots.
    pub fn table(&mut self, key: &str) -> BTreeMap<String, String> {
        self.read(key, BTreeMap::new(), |value| {
            let table = value.as_table().ok_or_else(|| not("a table", "write a table, such as { \"name\" = \"value\" }"))?;
            let mut flat = BTreeMap::new();
            flatten("", table, &mut flat);
            Ok(flat)
        })
    }
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&name, inner, flat),
            Value::String(text) => drop(flat.insert(name, text.clone())),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {
                flat.insert(name, value.to_string());
            }
        }
    }
}

fn one_of<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    match names.split_last() {
        Some((only, [])) => format!("write {only}"),
        Some((last, rest)) => format!("write {} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn pick<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| Wrong::new("is none of the choices", one_of(choices)))
}
