//! Every channel of the list has everything that CONTRIBUTING's checklist asks for. The list is the enum: a channel that is added
//! without a row here fails.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use messaging::channels::{ChannelKind, Owner, channel};
use messaging::content::{Content, Text};
use messaging::limit::BudgetScope;
use messaging::metrics::RunMode;
use serde_json::{Map, Value};

use support::sign::{Pairs, signed};
use support::{NOW, account, fixture_names, post, post_at, settings, vectors};

const HOUR: u64 = 3_600;

/// Hours of the window, cap, tags with their days.
type Window = (u64, Option<u32>, &'static [(&'static str, u64)]);

/// What a channel's rules must say, by its dossier.
struct Rules {
    kind: ChannelKind,
    /// None: no window.
    window: Option<Window>,
    /// Scopes of the budgets of a text, narrowest first.
    budgets: &'static [BudgetScope],
    /// Seconds: deadline, redelivered for; then when it punishes (seconds, refusals in a row).
    refusal: (u64, u64, Option<u64>, Option<u32>),
    /// Seconds for which a signature is good; none: no time is signed.
    signed_for: Option<u64>,
    /// A `to` object of its own.
    to: &'static str,
    /// The public member that is the platform's id of an account.
    identity: Option<&'static str>,
}

fn rules() -> Vec<Rules> {
    use BudgetScope::{Account, App, Page, Pair, Route};
    use ChannelKind as K;
    let human: &[(&str, u64)] = &[("human_agent", 7)];
    let rules =
        |kind, window, budgets, refusal, signed_for, to, identity| Rules { kind, window, budgets, refusal, signed_for, to, identity };
    vec![
        rules(
            K::Whatsapp,
            Some((24, None, &[])),
            &[Pair, Account],
            (1, 168 * HOUR, None, None),
            None,
            r#"{"phone":"+15550100"}"#,
            Some("phone_number_id"),
        ),
        rules(K::Telegram, None, &[Pair, Account], (1, 24 * HOUR, None, None), None, r#"{"chat_id":"4711"}"#, None),
        rules(
            K::Messenger,
            Some((24, None, human)),
            &[Account, Page],
            (5, HOUR, Some(HOUR), None),
            None,
            r#"{"psid":"1"}"#,
            Some("page_id"),
        ),
        rules(
            K::Instagram,
            Some((24, None, human)),
            &[Account],
            (5, HOUR, Some(HOUR), None),
            None,
            r#"{"igsid":"1"}"#,
            Some("instagram_id"),
        ),
        rules(
            K::Tiktok,
            Some((24, Some(10), &[])),
            &[Pair, Account, App],
            (5, 72 * HOUR, None, None),
            Some(72 * HOUR),
            r#"{"conversation_id":"a+/="}"#,
            Some("business_id"),
        ),
        rules(K::Discord, None, &[Route, App], (3, 0, None, None), Some(HOUR / 4), r#"{"channel_id":"1"}"#, None),
        rules(K::Email, None, &[Account], (15, 60, None, None), Some(HOUR / 12), r#"{"email":"ada@example.com"}"#, None),
        rules(K::Woocommerce, None, &[Account], (60, 0, None, Some(5)), None, r#"{"order_id":"727"}"#, None),
    ]
}

fn text() -> Content {
    Content::Text(Text { body: "hi".into(), preview_url: None })
}

#[test]
fn every_channel_has_its_row_of_rules() {
    let with_rules: Vec<ChannelKind> = rules().iter().map(|rules| rules.kind).collect();
    assert_eq!(with_rules, ChannelKind::ALL, "a row for each channel, in the order of the enum");
}

#[test]
fn names_and_kinds_fit() {
    for kind in ChannelKind::ALL.iter().copied() {
        assert_eq!((channel(kind).kind(), ChannelKind::from_name(kind.name())), (kind, Some(kind)));
    }
}

#[test]
fn windows() {
    for rules in rules() {
        let (kind, account) = (rules.kind, account(rules.kind, &[]));
        let said = channel(kind).window(&settings(kind), &account).map(|rule| {
            let tags: Vec<(&str, u64)> = rule.tags.iter().map(|tag| (tag.name, tag.length.as_secs() / HOUR / 24)).collect();
            assert!(rule.after_ad >= rule.length, "{}", kind.name());
            assert_eq!(rule.tags, channel(kind).tags(), "{}", kind.name());
            (rule.length.as_secs() / HOUR, rule.cap, tags)
        });
        let wanted = rules.window.map(|(hours, cap, tags)| (hours, cap, tags.to_vec()));
        assert_eq!(said, wanted, "{}", kind.name());
    }
}

#[test]
fn a_tiktok_account_may_ask_for_all_that_the_platform_allows() {
    let kind = ChannelKind::Tiktok;
    let rule = channel(kind).window(&settings(kind), &account(kind, &[("window", "48h")]));
    assert_eq!(rule.map(|rule| rule.length), Some(Duration::from_secs(48 * HOUR)));
}

#[test]
fn budgets_are_narrowest_first_and_can_be_met() {
    for rules in rules() {
        let (kind, account) = (rules.kind, account(rules.kind, &[]));
        let to = channel(kind).nobody();
        let budgets = channel(kind).budgets(&settings(kind), &to, &text());
        let scopes: Vec<BudgetScope> = budgets.iter().map(|budget| budget.scope).collect();
        assert_eq!(scopes, rules.budgets, "{}", kind.name());
        assert!(budgets.iter().all(|budget| budget.rate_per_second > 0.0 && budget.burst > 0), "{}", kind.name());
        let wide: Vec<bool> = scopes.iter().map(|scope| !scope.is_narrow()).collect();
        assert!(wide.is_sorted(), "{}: {scopes:?}", kind.name());
        for scope in scopes {
            let owner = channel(kind).owner(scope, &account, &to);
            let fits = match owner {
                Owner::Pair => scope == BudgetScope::Pair,
                Owner::Account => scope == BudgetScope::Account,
                Owner::Within(_) => scope.is_narrow(),
                Owner::Platform(_) => matches!(scope, BudgetScope::Page | BudgetScope::App),
            };
            assert!(fits, "{}: {scope:?} is of {owner:?}", kind.name());
        }
    }
}

#[test]
fn refusals_cost_what_the_platforms_say() {
    for rules in rules() {
        let cost = channel(rules.kind).refusal_cost();
        let said =
            (cost.deadline.as_secs(), cost.redelivered_for.as_secs(), cost.punished_after.map(|after| after.as_secs()), cost.punished_at);
        assert_eq!(said, rules.refusal, "{}", rules.kind.name());
        assert!((500..600).contains(&cost.status), "{}: a refusal must make the platform come again", rules.kind.name());
        let punishes = cost.punished_after.is_some() || cost.punished_at.is_some();
        assert!(!punishes || !cost.punishment.is_empty(), "{}", rules.kind.name());
    }
}

#[test]
fn recipients_go_both_ways() {
    for rules in rules() {
        let channel = channel(rules.kind);
        let to: Map<String, Value> = serde_json::from_str(rules.to).unwrap();
        let handle = channel.recipient(&to).unwrap_or_else(|fault| panic!("{}: {fault:?}", rules.kind.name()));
        let back = channel.recipient_json(&handle);
        let again = channel.recipient(back.as_object().unwrap()).unwrap();
        assert_eq!(again, handle, "{}", rules.kind.name());
        let short = to.values().next().unwrap().as_str().unwrap();
        assert_eq!(channel.short_recipient(short), Ok(handle), "{}", rules.kind.name());
        for bad in [r"{}", r#"{"nobody":"1"}"#] {
            assert!(channel.recipient(&serde_json::from_str(bad).unwrap()).is_err(), "{}: {bad}", rules.kind.name());
        }
    }
}

#[test]
fn members_of_accounts() {
    for rules in rules() {
        let fields = channel(rules.kind).fields();
        let names: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), fields.len(), "{}: each member once", rules.kind.name());
        assert!(fields.iter().any(|field| field.secret), "{}: something must prove a webhook or open the API", rules.kind.name());
        assert_eq!(channel(rules.kind).identity(), rules.identity, "{}", rules.kind.name());
        let of_app = channel(rules.kind).app_secret().map(|name| fields.iter().any(|field| field.name == name && field.secret));
        assert_eq!(
            of_app,
            rules.identity.map(|_| true),
            "{}: one hook for several accounts is proved by the app's secret",
            rules.kind.name()
        );
        let identity = rules.identity.map(|name| fields.iter().any(|field| field.name == name && !field.secret && field.required));
        assert_ne!(identity, Some(false), "{}: the identity is a public member that is needed", rules.kind.name());
        for field in fields {
            assert!((field.check)("").is_err(), "{}.{} may not be empty", rules.kind.name(), field.name);
            assert!(!field.help.is_empty());
        }
    }
}

#[test]
fn fixtures_and_vectors_of_both_kinds() {
    for kind in ChannelKind::ALL.iter().copied() {
        assert!(fixture_names(kind).len() >= 12, "{} has too few samples", kind.name());
        let verdicts: BTreeSet<String> = vectors(kind).iter().map(|vector| vector["expect"].as_str().unwrap_or("").to_owned()).collect();
        for wanted in ["valid", "invalid"] {
            assert!(verdicts.contains(wanted), "{} has no {wanted} signature: {verdicts:?}", kind.name());
        }
    }
}

fn borrowed(pairs: &Pairs) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn forged_and_stale_requests_are_refused() {
    for Rules { kind, signed_for, .. } in rules() {
        let body = Bytes::from_static(br#"{"object":"instagram","id":1,"type":1}"#);
        let (members, headers) = signed(kind, "s3cret", &body);
        let verifier = account(kind, &borrowed(&members)).verifier;
        let judged = |headers: &[(&str, &str)], body: &Bytes| post(kind, headers, body, &verifier).is_ok();
        let (name, headers) = (kind.name(), borrowed(&headers));
        assert!(judged(&headers, &body), "{name} refuses what is signed");
        assert!(!judged(&[], &body), "{name} takes what nobody signed");
        let (_, others) = signed(kind, "of another", &body);
        assert!(!judged(&borrowed(&others), &body), "{name} takes what another account's secret signed");
        let bent: Vec<(&str, String)> = headers.iter().map(|(name, value)| (*name, value[..value.len() - 1].to_owned())).collect();
        let bent: Vec<(&str, &str)> = bent.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert!(!judged(&bent, &body), "{name} takes a proof that is cut short");
        // Telegram's token is no part of the body.
        let other_body = Bytes::from_static(br#"{"object":"instagram","id":2,"type":1}"#);
        assert_eq!(judged(&headers, &other_body), kind == ChannelKind::Telegram, "{name}: another body");
        let at = |secs: u64| post_at(NOW.plus(Duration::from_secs(secs)), kind, &headers, &body, &verifier).is_ok();
        let month = 30 * 24 * HOUR;
        let ages = signed_for.map_or((month, true), |secs| (secs, false));
        assert_eq!((at(ages.0), at(ages.0 + 1)), (true, ages.1), "{name}: a signature is good for {signed_for:?} s");
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn source(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All sources of a folder in one.
fn sources(folder: &str) -> String {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default()).collect()
}

/// A platform's name as people write it.
fn spelled(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Whatsapp => "WhatsApp",
        ChannelKind::Telegram => "Telegram",
        ChannelKind::Messenger => "Messenger",
        ChannelKind::Instagram => "Instagram",
        ChannelKind::Tiktok => "TikTok",
        ChannelKind::Discord => "Discord",
        ChannelKind::Email => "e-mail",
        ChannelKind::Woocommerce => "WooCommerce",
    }
}

/// What stands outside this crate, by the sources' own words: the simulator, the fuzz subject with its seeds, the system test, `dev`.
#[test]
fn every_channel_is_simulated_fuzzed_and_tested_from_outside() {
    let (simulators, subjects, suite) = (source("bench/src/platform/simulator.rs"), source("fuzz/src/subject.rs"), sources("tests/it"));
    let dev = messaging::config::Config::load(RunMode::Dev, None, std::iter::empty(), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let readme = source("README.md");
    let first = readme.split("\n\n").nth(1).unwrap();
    let mut lacking = Vec::new();
    for kind in ChannelKind::ALL.iter().copied() {
        let (name, variant) = (kind.name(), format!("{kind:?}"));
        let subject = subjects.lines().find_map(|line| {
            let of_kind = line.trim_start().strip_prefix("(\"").filter(|line| line.contains(&format!("ChannelKind::{variant},")));
            of_kind?.split('"').next().map(str::to_owned)
        });
        let seeds = |subject: &String| std::fs::read_dir(root().join("fuzz/corpus").join(subject)).map_or(0, Iterator::count);
        for (has, what) in [
            (simulators.contains(&format!("ChannelKind::{variant} =>")), "a simulator in bench/src/platform/simulator.rs"),
            (subject.as_ref().is_some_and(|subject| seeds(subject) > 0), "a subject in fuzz/src/subject.rs with seeds in fuzz/corpus"),
            (suite.contains(&format!("\"{name}\"")), "a system test in tests/it"),
            (dev.config.dev.simulate.contains(&kind), "its name in dev.simulate"),
            (first.contains(spelled(kind)), "its name in the README's first paragraph"),
        ] {
            if !has {
                lacking.push(format!("{name} lacks {what}"));
            }
        }
    }
    assert!(lacking.is_empty(), "{lacking:#?}");
}

/// One plain example of each content that can go out.
const SENDS: [(&str, &str); 14] = [
    ("text", r#"{"text":{"body":"hi"}}"#),
    ("image", r#"{"image":{"link":"https://a.example/1.jpg"}}"#),
    ("video", r#"{"video":{"link":"https://a.example/1.mp4"}}"#),
    ("audio", r#"{"audio":{"link":"https://a.example/1.mp3"}}"#),
    ("document", r#"{"document":{"link":"https://a.example/1.pdf"}}"#),
    ("location", r#"{"location":{"latitude":1.0,"longitude":2.0}}"#),
    ("interactive", r#"{"interactive":{"body":"Pick","buttons":[{"id":"a","title":"A"}]}}"#),
    ("template", r#"{"template":{"name":"n","language":"en"}}"#),
    ("reaction", r#"{"reaction":{"platform_id":"1","emoji":"❤️"}}"#),
    ("read", r#"{"read":{}}"#),
    ("typing", r#"{"typing":{}}"#),
    ("email", r#"{"email":{"subject":"s","text":"t"}}"#),
    ("mixed", r#"{"mixed":[{"image":{"link":"https://a.example/1.jpg"}},{"image":{"link":"https://a.example/2.jpg"}}]}"#),
    (
        "contacts",
        r#"{"contacts":[{"name":{"formatted_name":"Ada","first_name":"Ada"},"phone_number":"+15550100","phones":[{"phone":"+15550100"}]}]}"#,
    ),
];

fn span(length: Duration) -> String {
    match length.as_secs() {
        0 => "never".to_owned(),
        secs if secs % 86_400 == 0 && secs > 86_400 => format!("{} d", secs / 86_400),
        secs if secs % HOUR == 0 => format!("{} h", secs / HOUR),
        secs if secs % 60 == 0 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}

/// The README's table, from the code.
fn table() -> String {
    let mut out = "| Channel | Sends | Window | Caps | Statuses | A webhook that we refuse |\n|---|---|---|---|---|---|\n".to_owned();
    for kind in ChannelKind::ALL.iter().copied() {
        let (channel, account, settings) = (channel(kind), account(kind, &[]), settings(kind));
        let takes = |sample: &str| {
            let content: Content = serde_json::from_str(sample).unwrap();
            channel.check(&content, &channel.nobody()).is_empty()
        };
        let sends: Vec<&str> = SENDS.iter().filter(|(_, sample)| takes(sample)).map(|(name, _)| *name).collect();
        let window = channel.window(&settings, &account).map_or("none".to_owned(), |rule| {
            let tags: Vec<String> = rule.tags.iter().map(|tag| format!(", {} {}", tag.name, span(tag.length))).collect();
            let cap = rule.cap.map_or(String::new(), |cap| format!(", {cap} messages"));
            format!("{}{}{cap}", span(rule.length), tags.concat())
        });
        let budgets = channel.budgets(&settings, &channel.nobody(), &text());
        let caps: Vec<String> = budgets
            .iter()
            .map(|budget| match budget.rate_per_second {
                rate if rate >= 1.0 => format!("{} {}/s", budget.scope.name(), rate),
                rate => format!("{} 1 in {:.0} s", budget.scope.name(), 1.0 / rate),
            })
            .collect();
        let told = if channel.has_watermarks() { "by watermark" } else { "each by itself, where the platform tells" };
        let cost = channel.refusal_cost();
        let punished = match (cost.punished_after, cost.punished_at) {
            (Some(after), _) => format!("; after {}: {}", span(after), cost.punishment),
            (None, Some(count)) => format!("; after {count} in a row: {}", cost.punishment),
            (None, None) => String::new(),
        };
        let again = if cost.redelivered_for.is_zero() {
            "does not come again".to_owned()
        } else {
            format!("comes again for {}", span(cost.redelivered_for))
        };
        out += &format!("| {} | {} | {window} | {} | {told} | {again}{punished} |\n", kind.name(), sends.join(", "), caps.join(", "));
    }
    out
}

#[test]
fn the_readme_has_the_table_that_the_code_says() {
    let readme = source("README.md");
    let table = table();
    assert!(readme.contains(&table), "put this into README.md, under \"Channels\":\n\n{table}");
}
