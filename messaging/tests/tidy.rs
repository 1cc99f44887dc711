//! The house rules, as tests over the sources of the whole workspace. A rule that nobody reads is none; this one reads itself.
//!
//! Each rule says what it guards. An exception stands in the rule's own list, beside its reason.

#[path = "support/sources.rs"]
mod text;

use std::fmt::Write as _;

use text::{File, files, none, sources};

/// Lines at which a file becomes a question.
const LINES_ASKED: usize = 500;
/// Lines that no file outside the tests may have.
const LINES_MAX: usize = 1000;
/// Files that may be larger: how many lines, and why. The number may fall, not rise.
const LARGE: &[(&str, usize, &str)] =
    &[("router/src/shard.rs", 1200, "the step and its loading share one state; recovery stands in a file of its own")];

/// What may not stand in code: unbounded queues, and things left for later.
const BANNED: &[(&str, &str)] = &[
    (concat!("unbounded", "_channel"), "every queue has a limit with a name"),
    (concat!("mpsc::", "unbounded"), "every queue has a limit with a name"),
    (concat!("to", "do!"), "build it, or leave it out"),
    (concat!("un", "implemented!"), "build it, or leave it out"),
    (concat!("db", "g!"), "for the terminal of its author only"),
];

/// Who may read the time other than through `clock::Clock`, and why. A folder ends with a slash.
const CLOCKS: &[(&str, &str)] = &[
    ("messaging/src/clock.rs", "the one place that reads the time"),
    ("messaging/src/store/embedded/measure.rs", "measures the cost of the store"),
    ("gateway/src/server/", "idle and slow connections are a matter of the machine, not of test time"),
    ("gateway/src/edge.rs", "how long a request took"),
    ("gateway/src/testing/", "how long a test waits for a server"),
    ("gateway/src/overload.rs", "how late a thread runs is a matter of the machine"),
    ("gateway/src/hooks.rs", "how long an acknowledgement took"),
    ("gateway/src/api/send.rs", "how long the log took, for server-timing"),
    ("gateway/src/api/feed.rs", "how long a reader is kept waiting"),
    ("gateway/src/api/endpoints.rs", "how long a test delivery took"),
    ("messaging/src/supervise.rs", "how long a task worked until it panicked"),
    ("router/src/lib.rs", "how long a commit took, and a shard worked until it panicked"),
    ("router/src/fleet.rs", "for how long a shard has been beginning"),
    ("router/src/crowd.rs", "how fast endpoints get on is a matter of the machine"),
    ("router/src/shard.rs", "how long a step took, and the end of a drain"),
    ("router/src/egress/", "deadlines of calls and connections are a matter of the machine"),
    ("node/src/logging.rs", "which repeated lines are held back"),
    ("node/src/client.rs", "how long the command line waits for an answer"),
    ("node/src/commands/", "how long the command line waits, as its user sees it"),
    ("node/src/bench_command.rs", "measures"),
    ("bench/", "measures, and simulates platforms that live in real time"),
];

/// Who begins tasks and threads by hand, how many, and why nothing dies there in silence. Everything else that lives long is begun by
/// `messaging::supervise`, which names one of its functions on the same line.
const SPAWNS: &[(&str, usize, &str)] = &[
    ("messaging/src/media/library.rs", 1, "one download: whoever waits for it sees its end, and asks again"),
    ("messaging/src/store/embedded/drain.rs", 1, "each job is vital"),
    ("messaging/src/store/embedded/reader.rs", 1, "each question has its answer, also when it panics"),
    ("messaging/src/store/embedded/sweep.rs", 1, "begun again inside the thread"),
    ("messaging/src/limit/redis/agent.rs", 1, "one call to Redis, in a set that the agent looks after"),
    ("gateway/src/connectors/keeper.rs", 1, "a work of an account: the keeper begins it again"),
    ("gateway/src/connectors/refresh.rs", 1, "one refresh: its caller waits for it"),
    ("gateway/src/server/connection.rs", 1, "one connection or stream: its peer sees it"),
    ("gateway/src/server/worker.rs", 3, "one connection: its peer sees it"),
    ("gateway/src/server/mod.rs", 1, "the thread's work is vital"),
    ("router/src/ends.rs", 1, "one change of the directory: the next failure asks for it again"),
    ("router/src/shard.rs", 1, "one change of the directory: the next refusal asks for it again"),
    ("router/src/lane.rs", 2, "a lane looks after itself in `live`; the other tells one end"),
    ("router/src/media.rs", 1, "deletes withdrawn media, which their retention ends else"),
    ("node/src/logging.rs", 1, "a wait: it ends a log filter that was set for a time"),
    (
        "node/src/node.rs",
        4,
        "the node waits for the gateway; what tells that it has started; the second signal; the watch over drain.total",
    ),
    ("node/src/client.rs", 1, "a connection of the command line"),
    ("node/src/commands/", 2, "the command line"),
    ("node/src/bench_command.rs", 2, "the command line"),
];

/// What a node is made of, and what of it only tests build.
const STATIONS: &[&str] = &["messaging/src/", "gateway/src/", "router/src/", "node/src/"];
const NOT_IN_A_NODE: &[&str] = &["/testing/", "/conformance", "/measure.rs", "clock.rs", "node/src/dev/"];

/// Which crates of the workspace a crate may name. `node` is a binary: nothing can name it.
const NAMES: &[(&str, &[&str])] = &[
    ("messaging", &[]),
    ("gateway", &["messaging"]),
    ("router", &["messaging"]),
    ("bench", &["messaging"]),
    ("node", &["messaging", "gateway", "router", "bench"]),
    ("tests", &["messaging", "bench"]),
];

/// The rooms of the spine that do not know each other.
const ROOMS: &[&str] = &["channels", "log", "store", "limit"];
/// What a room may take from another all the same.
const DOORS: &[(&str, &str, &str)] = &[("channels", "limit", "a channel gives its budgets as data")];

/// Hosts of public registries: where to fetch from is the machine's business.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("docker", ".io"),
    concat!("gh", "cr.io"),
];
/// Paths of the machine that a file was written on.
const PLACES: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/wt/")];
/// Written by tools, not by us.
const BY_TOOLS: &[&str] = &["Cargo.lock", "fuzz/Cargo.lock"];
/// The code of each line of a file, with its number: without comments, as far as a line shows them.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = file.text.lines().enumerate();
    lines.map(|(at, line)| (at + 1, line.split_once("//").map_or(line, |(code, _)| code)))
}

/// The room of the spine that a file stands in.
fn room(file: &File) -> Option<&str> {
    let rest = file.path.strip_prefix("messaging/src/")?;
    let room = rest.split(['/', '.']).next()?;
    ROOMS.contains(&room).then_some(room)
}

/// Whether a line names a word as a whole: `router::` is not in `my_router::`, nor in `self::router::`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '"'))
    })
}

#[test]
fn files_have_one_subject_and_an_end() {
    let (mut breaches, mut asked) = (Vec::new(), String::new());
    for file in sources().iter().filter(|file| !file.is_test()) {
        let lines = file.text.lines().count();
        if lines > LINES_ASKED {
            let _ = writeln!(asked, "  {lines:5}  {}", file.path);
        }
        let max = LARGE.iter().find(|(path, ..)| *path == file.path).map_or(LINES_MAX, |(_, max, _)| *max);
        if lines > max {
            breaches.push(format!("{} has {lines} lines, at most {max}: split it by subject", file.path));
        }
    }
    println!("files over {LINES_ASKED} lines, which is a question and not a crime:\n{asked}");
    none("files are too large", &breaches);
}

#[test]
fn nothing_is_unbounded_or_left_for_later() {
    let mut breaches = Vec::new();
    for file in &sources() {
        for (at, line) in code(file) {
            for (word, reason) in BANNED {
                if line.contains(word) {
                    breaches.push(format!("{}:{at}: {word} ({reason})", file.path));
                }
            }
        }
    }
    none("banned words", &breaches);
}

#[test]
fn time_comes_from_the_clock() {
    let mut breaches = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        let allowed = |(path, _): &(&str, &str)| file.path == *path || path.ends_with('/') && file.path.starts_with(path);
        if CLOCKS.iter().any(allowed) {
            continue;
        }
        for (at, line) in code(file) {
            if line.contains("Instant::now") || line.contains("SystemTime::now") {
                breaches.push(format!("{}:{at}: take a `Clock`, or name the file in CLOCKS with its reason", file.path));
            }
        }
    }
    none("time is read past the clock", &breaches);
}

#[test]
fn nothing_that_lives_long_dies_alone() {
    let mut breaches = Vec::new();
    let mut found = std::collections::BTreeMap::new();
    for file in sources().iter().filter(|file| !file.is_test() && STATIONS.iter().any(|station| file.path.starts_with(station))) {
        if NOT_IN_A_NODE.iter().any(|part| file.path.contains(part)) {
            continue;
        }
        // Tests stand at the end of a file.
        let code = code(file).take_while(|(_, line)| *line != "mod tests {");
        for (at, _) in code.filter(|(_, line)| spawns(line)) {
            let entry = SPAWNS.iter().find(|(path, ..)| file.path == *path || path.ends_with('/') && file.path.starts_with(path));
            match entry {
                Some((path, ..)) => *found.entry(*path).or_insert(0) += 1,
                None => {
                    breaches.push(format!("{}:{at}: begin it by `messaging::supervise`, or name it in SPAWNS with its reason", file.path))
                }
            }
        }
    }
    for (path, expected, _) in SPAWNS {
        let found = found.get(path).copied().unwrap_or(0);
        if found != *expected {
            breaches.push(format!("{path}: begins {found} by hand, SPAWNS says {expected}"));
        }
    }
    none("a task may die alone in silence", &breaches);
}

/// Whether a line begins a task or a thread by hand.
fn spawns(line: &str) -> bool {
    let begins = ["tokio::spawn(", "thread::spawn(", ".spawn(", "spawn_local("].iter().any(|call| line.contains(call));
    begins && !["vital(", "vital_here(", "again(", "again_here(", "self.spawn("].iter().any(|name| line.contains(name))
}

#[test]
fn imports_point_one_way() {
    let mut breaches = Vec::new();
    let files = files();
    for (of, may) in NAMES {
        let others = NAMES.iter().map(|(name, _)| *name).filter(|other| other != of && !may.contains(other));
        for other in others {
            let manifest = format!("{of}/Cargo.toml");
            for file in files.iter().filter(|file| file.path == manifest) {
                let names = |line: &str| line.split(['.', '=', ' ']).next() == Some(other);
                if file.text.lines().any(names) {
                    breaches.push(format!("{manifest} depends on {other}"));
                }
            }
            if matches!(other, "node" | "tests") {
                continue; // A binary and a package of tests: the manifests above say all, and modules may have these names.
            }
            for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with(&format!("{of}/"))) {
                for (at, line) in code(file) {
                    if names(line, &format!("{other}::")) || line.trim_start().starts_with(&format!("use {other};")) {
                        breaches.push(format!("{}:{at}: {of} names {other}", file.path));
                    }
                }
            }
        }
    }
    none("imports point the wrong way", &breaches);
}

#[test]
fn rooms_of_the_spine_do_not_know_each_other() {
    let mut breaches = Vec::new();
    for file in &sources() {
        let Some(room) = room(file) else { continue };
        for (at, line) in code(file) {
            if line.contains("crate::{") {
                breaches.push(format!("{}:{at}: write one path per line, so that rooms can be told apart", file.path));
            }
            for other in ROOMS.iter().filter(|other| **other != room) {
                let open = DOORS.iter().any(|(from, to, _)| from == &room && to == other);
                if !open && (line.contains(&format!("crate::{other}::")) || line.contains(&format!("crate::{other};"))) {
                    breaches.push(format!("{}:{at}: {room} knows {other}", file.path));
                }
            }
        }
    }
    none("rooms know each other", &breaches);
}

#[test]
fn files_name_no_registry_and_no_machine() {
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| !BY_TOOLS.contains(&file.path.as_str())) {
        for (at, line) in file.text.lines().enumerate() {
            for word in REGISTRIES.iter().chain(PLACES).filter(|word| line.contains(**word)) {
                breaches.push(format!("{}:{}: {word}", file.path, at + 1));
            }
        }
    }
    none("files name a registry or the machine that they were written on", &breaches);
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut breaches = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        if !file.text.trim_start().starts_with("//!") {
            breaches.push(format!("{} does not begin with a `//!` line", file.path));
        }
    }
    none("modules without a word", &breaches);
}

#[test]
fn the_rules_see_what_they_look_for() {
    assert!(names("use attic::chest;", "attic::") && names("    let chest = attic::chest();", "attic::"));
    assert!(!names("my_attic::x", "attic::") && !names("crate::attic::x", "attic::") && !names("\"attic::x\"", "attic::"));
    assert!(spawns("    tokio::spawn(run());") && spawns("std::thread::Builder::new().spawn(move || run())"));
    assert!(!spawns("    tokio::spawn(vital(SupervisedTask::Spool, run()));") && !spawns("    pub fn spawn(&self) {}"));
    let file = File { path: "messaging/src/store/embedded/mod.rs".into(), text: "a // b\nc".into() };
    assert_eq!(code(&file).collect::<Vec<_>>(), [(1, "a "), (2, "c")]);
    assert_eq!(room(&file), Some("store"));
    assert!(!file.is_test() && file.is_rust());
    assert!(File { path: "router/src/egress/tests/mod.rs".into(), text: String::new() }.is_test());
    assert_eq!(room(&File { path: "messaging/src/log.rs".into(), text: String::new() }), Some("log"));
    assert_eq!(room(&File { path: "messaging/src/clock.rs".into(), text: String::new() }), None);
}
