//! Every metric: name, help, labels, buckets. Names pass `promtool check metrics`; label values are closed sets; no tenant,
//! account, endpoint, contact or phone number is ever a label. Handles are kept: `INGRESS_EVENTS.at([channel, kind, outcome])`
//! is an array access.
//!
//! A family's constant is its name without `trunkline_` and `_total`, in capitals. The indices of `at` follow the labels.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Key, Metadata};

use crate::outcome::Outcome;

/// A label and its possible values.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values; an index into them is what `at` takes.
    pub values: &'static [&'static str],
}

/// A handle type of the `metrics` crate.
pub trait Handle: Sized {
    /// Registers one label set with the installed recorder (a no-op without one).
    fn register(key: &Key) -> Self;
}

const METADATA: Metadata<'static> = Metadata::new("trunkline", metrics::Level::INFO, None);

impl Handle for Counter {
    fn register(key: &Key) -> Self {
        metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA))
    }
}
impl Handle for Gauge {
    fn register(key: &Key) -> Self {
        metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
    }
}
impl Handle for Histogram {
    fn register(key: &Key) -> Self {
        metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
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
    handles: OnceLock<Box<[H]>>,
}

impl<H: Handle, const N: usize> Family<H, N> {
    const fn new(name: &'static str, help: &'static str, labels: [Label; N]) -> Self {
        Self { name, help, labels, handles: OnceLock::new() }
    }

    fn register_all(&self) -> Box<[H]> {
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
                H::register(&Key::from_parts(self.name, labels))
            })
            .collect()
    }

    /// The handle of a label set, by the indices of its values in label order.
    pub fn at(&self, indices: [usize; N]) -> &H {
        let handles = self.handles.get_or_init(|| self.register_all());
        let mut flat = 0;
        for (label, index) in self.labels.iter().zip(indices) {
            assert!(index < label.values.len(), "{} has no value {index} for {}", self.name, label.name);
            flat = flat * label.values.len() + index;
        }
        &handles[flat]
    }
}

/// Records that were dropped without an outcome: always 0.
pub static LOST_RECORDS: Family<Counter, 0> =
    Family::new("trunkline_lost_records_total", "Records dropped without an outcome; always 0 in a healthy system.", []);
/// Records the router finished, by outcome. Directions: 0 inbound, 1 outbound.
pub static ROUTER_RECORDS: Family<Counter, 3> = Family::new(
    "trunkline_router_records_total",
    "Records the router finished, by outcome.",
    [DIRECTION, CHANNEL, Label { name: "outcome", values: Outcome::NAMES }],
);

const DIRECTION: Label = Label { name: "direction", values: &["inbound", "outbound"] };
const CHANNEL: Label = Label { name: "channel", values: crate::channels::ChannelKind::NAMES };
