//! What stands in deploy/ is true: files are accepted by their tools, and every setting in them exists.

use std::path::{Path, PathBuf};
use std::process::Command;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// `TRUNKLINE__…` names in a text.
fn settings_in(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (at, _) in text.match_indices("TRUNKLINE__") {
        let name: String =
            text[at..].chars().take_while(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || *letter == '_').collect();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[test]
fn compose_files_are_accepted_and_their_settings_exist() {
    let file = deploy().join("compose/compose.yaml");
    let checked = Command::new("docker-compose").arg("-f").arg(&file).args(["config", "-q"]).output();
    let checked = checked.expect("docker-compose is missing: run tests/run, or install the Debian package docker-compose");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let text = std::fs::read_to_string(&file).expect("the file is there");
    let names = settings_in(&text);
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let key = name.trim_start_matches("TRUNKLINE__").to_ascii_lowercase().replace("__", ".");
        let explained = Command::new(system_tests::binary()).args(["config", "explain", &key]).output().expect("the binary runs");
        assert!(explained.status.success(), "{name} is no setting: {}", String::from_utf8_lossy(&explained.stderr));
    }
    for part in ["kafka", "scylla", "redis", "topics", "migrate", "gateway-1", "gateway-2", "router-1", "router-2"] {
        assert!(text.contains(&format!("\n  {part}:\n")), "{part} is a service");
    }
}

/// Prometheus and Grafana of compose.yaml start when they are asked for, find their files, and look at every process.
#[test]
fn monitoring_is_asked_for_and_finds_what_it_needs() {
    let read = |path: &str| std::fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let compose = read("compose/compose.yaml");
    for part in ["prometheus", "grafana"] {
        let service = compose.split(&format!("\n  {part}:\n")).nth(1).unwrap_or_else(|| panic!("{part} is a service"));
        let service = service.split("\n\n").next().unwrap_or_default();
        assert!(service.contains("    profiles: [monitoring]\n"), "{part} is off by default");
        let mounts: Vec<&str> =
            service.lines().filter_map(|line| line.trim().strip_prefix("- ")).filter(|line| line.starts_with('.')).collect();
        assert_eq!(mounts.len(), 2, "{part}: {mounts:?}");
        for mount in mounts {
            let source = mount.split(':').next().unwrap_or_default();
            assert!(deploy().join("compose").join(source).exists(), "{part}: {source} does not exist");
        }
    }
    let boards = "/etc/trunkline/dashboards";
    assert!(compose.contains(&format!("../grafana/dashboards:{boards}:ro")), "the boards are mounted");
    assert!(read("grafana/provisioning/dashboards/trunkline.yaml").contains(&format!("path: {boards}\n")), "Grafana looks for them there");
    assert!(read("grafana/provisioning/datasources/prometheus.yaml").contains("url: http://prometheus:9090\n"), "Grafana asks it");
    let config = deploy().join("compose/prometheus.yaml");
    let checked = Command::new("promtool").args(["check", "config"]).arg(&config).output();
    let checked = checked.expect("promtool is there: tests/run fetches it");
    assert!(checked.status.success(), "promtool says: {}", String::from_utf8_lossy(&checked.stderr));
    let scraped = read("compose/prometheus.yaml");
    let processes = compose.split("TRUNKLINE__NODE__NAME: ").skip(1).filter_map(|rest| rest.lines().next());
    for process in processes {
        assert!(scraped.contains(&format!("\"{process}:9090\"")), "{process} is scraped");
    }
}

#[test]
fn the_commands_of_the_one_shots_parse() {
    for words in [
        vec!["topics", "apply", "--file", "/etc/trunkline/topics.toml", "--replication", "1", "--help"],
        vec!["migrate", "apply", "--help"],
        vec!["serve", "--role", "gateway", "--help"],
        vec!["healthcheck", "--help"],
    ] {
        let output = Command::new(system_tests::binary()).args(&words).output().expect("the binary runs");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn alert_rules_fire_when_they_should() {
    let folder = deploy().join("prometheus");
    let names = |end: &str| -> Vec<String> {
        let entries = std::fs::read_dir(&folder).expect("the folder is there");
        let mut names: Vec<String> = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.retain(|name| name.ends_with(end));
        names
    };
    let promtool = |words: &[&str], files: &[String]| {
        let output = Command::new("promtool").current_dir(&folder).args(words).args(files).output();
        let output = output.expect("promtool is there: tests/run fetches it");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "promtool says: {said}");
    };
    let (rules, tests) = (names(".rules.yaml"), names(".test.yaml"));
    assert_eq!(rules.len(), tests.len(), "each file of rules has its test: {rules:?} {tests:?}");
    promtool(&["check", "rules"], &rules);
    promtool(&["test", "rules"], &tests);
    // Each alert has a test that sees it fire, and a section in the runbooks with its four parts, which its annotation names.
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of ours is readable");
    let runbooks = read("runbooks.md");
    for file in &rules {
        let (text, tested) = (read(file), read(&file.replace(".rules.", ".test.")));
        for alert in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            let fires = tested.split(&format!("alertname: {alert}\n")).skip(1).any(|rest| rest.trim_start().starts_with("exp_alerts:"));
            assert!(fires, "no test sees {alert} fire");
            assert!(text.contains(&format!("runbooks.md#{}\"", alert.to_lowercase())), "{alert} names its runbook");
            let section = runbooks.split(&format!("\n## {alert}\n")).nth(1).unwrap_or_else(|| panic!("{alert} has no runbook"));
            let section = section.split("\n## ").next().unwrap_or_default();
            for part in ["**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**"] {
                assert!(section.contains(part), "{alert}: {part}");
            }
        }
    }
    // What the rules look at exists.
    let families = std::fs::read_to_string(deploy().join("../messaging/src/metrics/families.rs")).expect("the metrics are there");
    for file in rules {
        let text = std::fs::read_to_string(folder.join(file)).expect("a file of ours is readable");
        for name in
            text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').filter(|word| word.starts_with("trunkline_"))
        {
            let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let known = [name, family].iter().any(|name| families.contains(&format!("\"{name}\"")));
            assert!(known, "{name} is no metric");
        }
    }
}
