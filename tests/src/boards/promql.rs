//! As much of PromQL as the table needs: where metric names stand in a query.

/// The label matcher that every selector gets.
const MATCHER: &str = r#"job=~"$job""#;
/// What Grafana puts in place of the interval that is right for rates.
const INTERVAL: &str = "[$__rate_interval]";
/// Words that are no metric names, though no parenthesis follows them.
const KEYWORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"];
/// Those of them that a list of labels follows.
const LISTS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// A query as Grafana asks it: with the `job` matcher at every selector of a family and the interval for rates. Recording rules and
/// `ALERTS` have no job of their own, and stay as they are.
pub fn expression(text: &str) -> String {
    let mut out = String::new();
    let mut rest = 0;
    for (at, name) in names(text) {
        if name.contains(':') || name == "ALERTS" {
            continue;
        }
        let end = at + name.len();
        out.push_str(&text[rest..end]);
        rest = end;
        if text[end..].starts_with('{') {
            out.push('{');
            out.push_str(MATCHER);
            out.push_str(", ");
            rest += 1;
        } else {
            out.push('{');
            out.push_str(MATCHER);
            out.push('}');
        }
    }
    out.push_str(&text[rest..]);
    out.replace("[R]", INTERVAL)
}

/// The metrics that a query names.
pub fn metrics(text: &str) -> Vec<&str> {
    names(text).into_iter().map(|(_, name)| name).collect()
}

/// The labels that a query names: in lists such as `by (…)`, and in selectors.
pub fn labels(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('(') {
        let before = text[..at].trim_end();
        let word = before.rsplit(|letter: char| !is_of_word(letter)).next().unwrap_or_default();
        if LISTS.contains(&word) {
            let list = text[at + 1..].split(')').next().unwrap_or_default();
            found.extend(list.split(',').map(str::trim).filter(|label| !label.is_empty()));
        }
    }
    for selector in text.split('{').skip(1) {
        let selector = selector.split('}').next().unwrap_or_default();
        found.extend(selector.split(',').filter_map(|matcher| matcher.split(['=', '!']).next()).map(str::trim));
    }
    found
}

/// Where metric names stand: words outside of selectors, ranges and lists of labels that are neither keywords nor functions.
fn names(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        if let Some(end) = match letter {
            '{' => Some('}'),
            '[' => Some(']'),
            _ => None,
        } {
            at += text[at..].find(end).map_or(text.len() - at, |length| length + 1);
            continue;
        }
        let length = text[at..].find(|letter: char| !is_of_word(letter)).unwrap_or(text.len() - at);
        if length == 0 {
            at += letter.len_utf8();
            continue;
        }
        let word = &text[at..at + length];
        let after = text[at + length..].trim_start();
        let is_number_or_duration = word.starts_with(|letter: char| letter.is_ascii_digit());
        if !is_number_or_duration && !KEYWORDS.contains(&word) && !after.starts_with('(') && !is_aggregation(word, after) {
            found.push((at, word));
        }
        at += length;
        if LISTS.contains(&word) && after.starts_with('(') {
            at += text[at..].find(')').map_or(text.len() - at, |length| length + 1);
        }
    }
    found
}

/// Whether a word stands before `by (…)`: then it is the aggregation.
fn is_aggregation(word: &str, after: &str) -> bool {
    let follows = |list: &str| after.strip_prefix(list).is_some_and(|rest| rest.trim_start().starts_with('('));
    matches!(word, "sum" | "max" | "min" | "avg" | "count" | "quantile") && (follows("by") || follows("without"))
}

fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found() {
        let text = r#"sum by (le, topic) (rate(a{b="c", d!="e"}[R])) / on(slo) group_left() f"#;
        assert_eq!(labels(text), ["le", "topic", "slo", "b", "d"]);
    }

    #[test]
    fn selectors_get_their_matcher() {
        // (query, metrics, as Grafana asks it)
        let table: [(&str, &[&str], &str); 6] = [
            ("a_total", &["a_total"], r#"a_total{job=~"$job"}"#),
            (
                "sum by (le) (rate(a_bucket[R])) / on(slo) group_left() b",
                &["a_bucket", "b"],
                r#"sum by (le) (rate(a_bucket{job=~"$job"}[$__rate_interval])) / on(slo) group_left() b{job=~"$job"}"#,
            ),
            (r#"- sum(rate(a{b="c d", e="f"}[R]))"#, &["a"], r#"- sum(rate(a{job=~"$job", b="c d", e="f"}[$__rate_interval]))"#),
            ("1 - slo:x:y", &["slo:x:y"], "1 - slo:x:y"),
            (r#"ALERTS{x="y"}"#, &["ALERTS"], r#"ALERTS{x="y"}"#),
            (
                "time() - min by (a) (b > 0) unless c offset 5m",
                &["b", "c"],
                r#"time() - min by (a) (b{job=~"$job"} > 0) unless c{job=~"$job"} offset 5m"#,
            ),
        ];
        for (query, named, asked) in table {
            assert_eq!(metrics(query), named, "{query}");
            assert_eq!(expression(query), asked, "{query}");
        }
    }
}
