//! Every metric: name, help, labels, buckets. Names pass `promtool check metrics`; label values are closed sets; no tenant,
//! account, endpoint, contact or phone number is ever a label. Handles are kept: `INGRESS_EVENTS.at([channel, kind, outcome])`
//! is an array access.
//!
//! A family's constant is its name without `trunkline_` and `_total`, in capitals. The indices of `at` follow the labels.
//!
//! The families stand in `families`, the labels' values in `labels`. The recorder comes into being at first use, so a handle
//! always counts, whoever is first; [`install`] makes every label set exist from the start, at zero.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Key, Metadata};

mod exporter;
mod families;
mod labels;
mod process;

pub use exporter::{Exporter, install};
pub use families::*;
pub use labels::*;

/// A label and its possible values.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values; an index into them is what `at` takes.
    pub values: &'static [&'static str],
}

/// What a family measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// Its name in the exposition format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A handle type of the `metrics` crate.
pub trait Handle: Sized + Send + Sync {
    /// What it measures.
    const KIND: Kind;
    /// Registers one label set with a recorder.
    fn register(recorder: &dyn metrics::Recorder, key: &Key) -> Self;
}

const METADATA: Metadata<'static> = Metadata::new("trunkline", metrics::Level::INFO, None);

impl Handle for Counter {
    const KIND: Kind = Kind::Counter;
    fn register(recorder: &dyn metrics::Recorder, key: &Key) -> Self {
        recorder.register_counter(key, &METADATA)
    }
}
impl Handle for Gauge {
    const KIND: Kind = Kind::Gauge;
    fn register(recorder: &dyn metrics::Recorder, key: &Key) -> Self {
        recorder.register_gauge(key, &METADATA)
    }
}
impl Handle for Histogram {
    const KIND: Kind = Kind::Histogram;
    fn register(recorder: &dyn metrics::Recorder, key: &Key) -> Self {
        recorder.register_histogram(key, &METADATA)
    }
}

/// A metric family with `N` labels: all label sets are registered at first use and kept.
pub struct Family<H: 'static, const N: usize> {
    /// Its full name.
    pub name: &'static str,
    /// Its help text.
    pub help: &'static str,
    /// Its labels.
    pub labels: [Label; N],
    /// Upper bounds of a histogram's buckets; empty for other kinds.
    pub buckets: &'static [f64],
    handles: OnceLock<Box<[H]>>,
}

impl<H: Handle, const N: usize> Family<H, N> {
    const fn new(name: &'static str, help: &'static str, labels: [Label; N], buckets: &'static [f64]) -> Self {
        Self { name, help, labels, buckets, handles: OnceLock::new() }
    }

    fn register_all(&self) -> Box<[H]> {
        let recorder = exporter::recorder();
        let count: usize = self.labels.iter().map(|label| label.values.len()).product();
        (0..count)
            .map(|flat| {
                let mut rest = flat;
                let mut labels = Vec::with_capacity(N);
                for label in self.labels.iter().rev() {
                    labels.push(metrics::Label::from_static_parts(label.name, label.values[rest % label.values.len()]));
                    rest /= label.values.len();
                }
                labels.reverse();
                H::register(recorder, &Key::from_parts(self.name, labels))
            })
            .collect()
    }

    fn handles(&self) -> &[H] {
        self.handles.get_or_init(|| self.register_all())
    }

    /// The handle of a label set, by the indices of its values in label order.
    pub fn at(&self, indices: [usize; N]) -> &H {
        let mut flat = 0;
        for (label, index) in self.labels.iter().zip(indices) {
            assert!(index < label.values.len(), "{} has no value {index} for {}", self.name, label.name);
            flat = flat * label.values.len() + index;
        }
        &self.handles()[flat]
    }
}

/// What is known of a family without its handles: for the reference page, the recorder and the tests.
pub trait Describe: Sync {
    /// Its full name.
    fn name(&self) -> &'static str;
    /// Its help text.
    fn help(&self) -> &'static str;
    /// What it measures.
    fn kind(&self) -> Kind;
    /// Its labels.
    fn labels(&self) -> &[Label];
    /// Upper bounds of a histogram's buckets; empty for other kinds.
    fn buckets(&self) -> &'static [f64];
    /// Makes all its label sets exist.
    fn register(&self);
}

impl<H: Handle, const N: usize> Describe for Family<H, N> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn help(&self) -> &'static str {
        self.help
    }
    fn kind(&self) -> Kind {
        H::KIND
    }
    fn labels(&self) -> &[Label] {
        &self.labels
    }
    fn buckets(&self) -> &'static [f64] {
        self.buckets
    }
    fn register(&self) {
        self.handles();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_set_exists_from_the_start_and_counts() {
        let exporter = install();
        exporter.build_info("0.1.0", "unknown", RunMode::Dev);
        let series = r#"trunkline_media_failures_total{reason="full"}"#;
        assert_eq!(exporter.value(series), Some(0.0));
        MEDIA_FAILURES.at([crate::channels::MediaFault::Full.index()]).increment(2);
        assert_eq!(exporter.value(series), Some(2.0));
        assert_eq!(exporter.value(r#"trunkline_build_info{version="0.1.0",revision="unknown",mode="dev"}"#), Some(1.0));
        assert!(exporter.value("process_resident_memory_bytes").is_some_and(|bytes| bytes > 0.0));

        WEBHOOK_DELIVERY_AGE_SECONDS.at([]).record(0.3);
        exporter.upkeep();
        assert_eq!(exporter.value(r#"trunkline_webhook_delivery_age_seconds_bucket{le="0.25"}"#), Some(0.0));
        assert_eq!(exporter.value(r#"trunkline_webhook_delivery_age_seconds_bucket{le="0.5"}"#), Some(1.0));

        let text = exporter.render();
        for family in FAMILIES {
            let (name, kind) = (family.name(), family.kind().name());
            assert!(text.contains(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help())), "{name}");
        }
        assert_eq!(install().render().lines().count(), text.lines().count(), "installing again adds nothing");
    }

    #[test]
    fn the_table_keeps_its_rules() {
        let mut seen = std::collections::BTreeSet::new();
        for family in FAMILIES {
            let name = family.name();
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.starts_with("trunkline_"), "{name}");
            assert_eq!(family.kind() == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(family.kind() == Kind::Histogram, !family.buckets().is_empty(), "{name}");
            assert!(family.buckets().is_sorted(), "{name}");
            assert!(family.help().ends_with('.'), "{name}");
            for label in family.labels() {
                assert!(!["tenant", "account", "endpoint", "contact", "phone"].contains(&label.name), "{name}");
                let values: std::collections::BTreeSet<_> = label.values.iter().collect();
                assert_eq!(values.len(), label.values.len(), "{name} {}", label.name);
            }
        }
    }

    #[test]
    #[should_panic(expected = "has no value 9 for decision")]
    fn an_index_beyond_a_label_is_a_mistake_in_the_code() {
        RATELIMIT_DECISIONS.at([0, 9]);
    }

    /// `PROMTOOL=/path cargo test -p messaging promtool -- --ignored` runs the linter of Prometheus over the text.
    #[test]
    #[ignore = "needs promtool"]
    fn promtool_finds_nothing() {
        let promtool = std::env::var_os("PROMTOOL").expect("PROMTOOL names the promtool binary");
        let path = std::env::temp_dir().join(format!("trunkline-metrics-{}.txt", std::process::id()));
        std::fs::write(&path, install().render()).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let output = std::process::Command::new(promtool).args(["check", "metrics"]).stdin(file).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
