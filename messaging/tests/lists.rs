//! What the product says it has, it has: metrics are set, settings are read, event types are emitted, problem codes are returned, and the
//! calls that texts name are routes. Each list is read where it stands, so that a line added there and used nowhere fails here.

#[path = "support/sources.rs"]
mod text;

use std::collections::BTreeSet;

use text::{File, files, none, sources};

/// The sources that run in production, without white space: a name is found however rustfmt broke its line.
struct Code(Vec<(String, String)>);

impl Code {
    /// All but the tests and some files.
    fn without(left_out: &[&str]) -> Self {
        let runs = |file: &File| !file.is_test() && !left_out.iter().any(|path| file.path.starts_with(path));
        let squeeze = |file: File| {
            let production = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            (file.path.clone(), production.split_whitespace().collect())
        };
        Self(sources().into_iter().filter(runs).map(squeeze).collect())
    }

    /// Whether `name` stands somewhere, not as a part of a longer one.
    fn has(&self, name: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        self.0.iter().any(|(_, text)| {
            text.match_indices(name).any(|(at, _)| {
                let before = text[..at].chars().next_back().is_some_and(is_word);
                let after = text[at + name.len()..].chars().next().is_some_and(is_word);
                let open = name.ends_with(|c: char| !is_word(c));
                !before && (open || !after)
            })
        })
    }

    /// Whether a section is taken apart into its fields somewhere, this one among them.
    fn destructures(&self, section: &str, field: &str) -> bool {
        let name = format!("{}{}Config{{", section[..1].to_uppercase(), &section[1..]);
        let fields = self.0.iter().flat_map(|(_, text)| text.split(&name).skip(1).filter_map(|rest| rest.split('}').next()));
        fields.flat_map(|fields| fields.split(',')).any(|one| one.split(':').next() == Some(field) && !one.ends_with(":_"))
    }
}

fn source(path: &str) -> String {
    let found = files().into_iter().find(|file| file.path == path);
    found.unwrap_or_else(|| panic!("{path} is there")).text
}

/// The first word of each line of a part of a file that has `mark` behind it.
fn first_words<'t>(text: &'t str, from: &str, mark: &str) -> Vec<&'t str> {
    let part = text.split_once(from).unwrap_or_else(|| panic!("{from} is there")).1;
    let part = part.split_once("\n}").map_or(part, |(part, _)| part);
    let word = |line: &'t str| line.trim_start().split_once(mark).map(|(word, _)| word);
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    part.lines().filter_map(word).filter(is_name).collect()
}

#[test]
fn every_metric_is_set_somewhere() {
    let text = source("messaging/src/metrics/families.rs");
    let names = first_words(&text, "\nfamilies! {", ": ");
    assert!(names.len() > 60, "the table was read: {names:?}");
    let code = Code::without(&["messaging/src/metrics/"]);
    let dead: Vec<String> = names.iter().filter(|name| !code.has(&format!("{name}.at("))).map(|name| (*name).to_owned()).collect();
    none("a metric that nothing sets is a zero that lies: set it, or take it out of families.rs", &dead);
}

#[test]
fn every_setting_has_a_reader() {
    let text = source("messaging/src/config/mod.rs");
    let code = Code::without(&["messaging/src/config/build.rs"]);
    let (mut section, mut read, mut dead) = (String::new(), 0, Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub struct ") {
            section = name.strip_suffix("Config {").unwrap_or_default().to_lowercase();
        }
        let Some((field, _)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) else { continue };
        if section.is_empty() || line.contains('(') {
            continue;
        }
        read += 1;
        let named = code.has(&format!("{section}.{field}")) || code.has(&format!("self.{field}"));
        if !named && !code.destructures(&section, field) {
            dead.push(format!("{section}.{field}"));
        }
    }
    assert!(read > 50, "the sections were read: {read}");
    none("a setting that nothing reads: give it its effect, or refuse it in config/source.rs with the reason", &dead);
}

#[test]
fn every_event_type_is_emitted() {
    let text = source("messaging/src/event.rs");
    let names = first_words(&text, "\nevent_types! {", " = \"");
    assert!(names.len() > 30, "the table was read: {names:?}");
    let code = Code::without(&["messaging/src/event.rs", "bench/", "node/"]);
    let dead: Vec<String> = names.into_iter().filter(|name| !code.has(&format!("EventType::{name}"))).map(str::to_owned).collect();
    none("an event type that nothing emits: emit it, or take it out of event.rs", &dead);
}

#[test]
fn every_problem_code_is_returned() {
    /// Made by constructors of their own in problem.rs.
    const CONSTRUCTED: &[(&str, &str)] = &[("NotFound", "Problem::not_found("), ("ValidationFailed", "Problem::invalid(")];
    let text = source("gateway/src/problem.rs");
    let names = first_words(&text, "\ncodes! {", " = \"");
    assert!(names.len() > 20, "the table was read: {names:?}");
    let code = Code::without(&["gateway/src/problem.rs", "gateway/src/testing/"]);
    let mut dead = Vec::new();
    for name in names {
        let constructor = CONSTRUCTED.iter().find(|(of, _)| *of == name).map(|(_, call)| (*call).to_owned());
        if !code.has(&constructor.unwrap_or_else(|| format!("Code::{name}"))) {
            dead.push(name.to_owned());
        }
    }
    none("a problem code that nothing returns: return it, or take it out of problem.rs", &dead);
}

/// `METHOD /path` in any text of ours, where the path begins like one of ours, is a call that is served.
#[test]
fn every_call_that_a_text_names_is_a_route() {
    const OURS: &[&str] = &["/v1/", "/hooks/", "/problems/", "/media/", "/deletion/", "/admin/", "/livez", "/readyz", "/metrics"];
    let routes = source("gateway/src/routes.rs");
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for (verb, rest) in ["Get", "Post", "Patch", "Delete"].iter().flat_map(|verb| {
        let mark = format!("({verb}, \"");
        routes.split(mark.as_str()).skip(1).map(|rest| (verb.to_uppercase(), rest.to_owned())).collect::<Vec<_>>()
    }) {
        known.insert((verb, shape(rest.split('"').next().unwrap_or_default())));
    }
    assert!(known.len() > 40, "the table was read: {known:?}");
    // The admin listener's paths, where they are served.
    let admin = source("gateway/src/admin/mod.rs") + &source("gateway/src/admin/log_filter.rs");
    let mut unknown = Vec::new();
    for file in files() {
        let is_text = file.is_rust() || file.path.ends_with(".md") || file.path.ends_with(".toml");
        if !is_text || file.is_test() || file.path.starts_with("gateway/src/testing/") || file.path == "gateway/src/routes.rs" {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for (verb, path) in calls(line) {
                if !OURS.iter().any(|ours| path.starts_with(ours)) {
                    continue;
                }
                let served = known.contains(&(verb.to_owned(), shape(path))) || admin.contains(&format!("\"{path}\""));
                if !served {
                    unknown.push(format!("{}:{}: {verb} {path}", file.path, number + 1));
                }
            }
        }
    }
    none("a text names a call that is not served", &unknown);
}

/// The calls that a line names.
fn calls(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for verb in ["GET", "POST", "PATCH", "DELETE", "PUT"] {
        for (at, _) in line.match_indices(verb) {
            let Some(path) = line[at + verb.len()..].strip_prefix(' ') else { continue };
            let end = path.find(|c: char| c.is_whitespace() || "`\"'?,;:)<…*|\\".contains(c)).unwrap_or(path.len());
            let path = path[..end].trim_end_matches(['.', '/']);
            if path.starts_with('/') && !path.contains("..") {
                found.push((verb, path));
            }
        }
    }
    found
}

/// A path with every segment that stands for an id made alike: `{…}`, or an id of ours.
fn shape(path: &str) -> String {
    let of = |segment: &str| {
        let is_id =
            segment.starts_with('{') || segment.starts_with('$') || segment.split_once('_').is_some_and(|(kind, _)| kind.len() == 3);
        if is_id { "*".to_owned() } else { segment.to_owned() }
    };
    path.split('/').map(of).collect::<Vec<_>>().join("/")
}
