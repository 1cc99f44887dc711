use clap::CommandFactory;

use super::*;

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_ends_with_2_and_good_usage_parses() {
    let good = 0;
    let cases = [
        ("", good),
        ("version", good),
        ("dev --data d --port 9000 --seed 7 --set log.partitions=4", good),
        ("dev --set partitions", 2),
        ("dev --port 70000", 2),
        ("serve --role gateway,router", good),
        ("serve --role gateway --role router --config a.toml", good),
        ("serve --role console", 2),
        ("send --to +15550100 --text hello --wait --timeout 5s", good),
        ("send --to -4711 --text hello", good),
        ("send --text hello", 2),
        ("send --file m.json --dry-run", good),
        ("send --file m.json --text hello", 2),
        ("send --to +1 --text a --template t:en", good),
        ("send --to +1 --template t", 2),
        ("send --to +1 --template :en", 2),
        ("send --to +1 --text a --wait --dry-run", 2),
        ("send --to +1 --text a --wait --timeout soon", 2),
        ("send --to +1 --image http://a --document http://b", 2),
        ("listen --events a,b --since 10m --forward-to http://127.0.0.1:3000/", good),
        ("listen --since 10", 2),
        ("tail --errors --channel whatsapp", good),
        ("account create --channel whatsapp --name n --field a=b --secret-env c=D", good),
        ("account create --name n", 2),
        ("account show", 2),
        ("account revoke-previous acc_1", good),
        ("endpoint create --to-url http://a --events message.* --url http://127.0.0.1:1", good),
        ("endpoint rotate-secret ep_1 --json", good),
        ("key create --name n --scope messages:send,messages:read", good),
        ("key create --name n", 2),
        ("tenant frobnicate", 2),
        ("config explain log.partitions", good),
        ("config explain", 2),
        ("check-config --config a.toml", good),
        ("bench ratio --json --rate 10 --connections 4 --duration 1s --conversations 5", good),
        ("bench ratio --config kafka.toml", good),
        ("bench everything", 2),
        ("bench-bare --addr 127.0.0.1:0", good),
        ("healthcheck --admin http://127.0.0.1:9090", good),
        ("topics plan --config a.toml", good),
        ("topics apply --file t.toml --partitions 4 --replication 1 --new-generation", good),
        ("topics apply --partitions many", 2),
        ("migrate status", good),
        ("migrate apply --config a.toml", good),
        ("migrate down", 2),
        ("frobnicate", 2),
        ("--help", good),
    ];
    for (line, code) in cases {
        let found = match Cli::try_parse_from(std::iter::once("trunkline").chain(line.split_whitespace())) {
            Ok(_) => good,
            Err(error) => error.exit_code(),
        };
        assert_eq!(found, code, "trunkline {line}");
    }
}

#[test]
fn small_values_parse() {
    let params = |text| template(text).map(|template| template.params);
    assert_eq!(params("t:en:a,b"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(params("t:en:a:b"), Ok(vec!["a:b".to_owned()]));
    assert_eq!(params("t:en"), Ok(vec![]));
    assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
    assert!(duration("99999999999999999d").is_err() && duration("s").is_err() && duration("").is_err());
}
