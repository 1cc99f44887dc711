//! The recorder and its text.

use std::sync::OnceLock;

use metrics::{KeyName, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{BUILD_INFO_HELP, BUILD_INFO_NAME, FAMILIES, Handle, Kind, RunMode, process};

/// The one recorder of this process. A static of our own rather than the `metrics` crate's global one: handles are made once and
/// kept, and one that was made before the recorder existed would count into nothing for ever.
static RECORDER: OnceLock<PrometheusRecorder> = OnceLock::new();

pub(super) fn recorder() -> &'static PrometheusRecorder {
    RECORDER.get_or_init(build)
}

fn build() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for family in FAMILIES {
        if family.kind() == Kind::Histogram {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(family.name().to_owned()), family.buckets())
                .expect("every histogram of the table has buckets");
        }
    }
    let recorder = builder.build_recorder();
    for family in FAMILIES {
        let name = KeyName::from_const_str(family.name());
        let help = SharedString::const_str(family.help());
        match family.kind() {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
    recorder.describe_gauge(KeyName::from_const_str(BUILD_INFO_NAME), None, SharedString::const_str(BUILD_INFO_HELP));
    recorder
}

/// Makes every label set of every family exist at zero, and gives the exporter. Calling it again gives the same exporter.
pub fn install() -> Exporter {
    for family in FAMILIES {
        family.register();
    }
    Exporter { handle: recorder().handle() }
}

/// Renders the metrics of this process.
#[derive(Clone, Debug)]
pub struct Exporter {
    handle: PrometheusHandle,
}

impl Exporter {
    /// How often [`Exporter::upkeep`] is to be called.
    pub const UPKEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

    /// Sets the build facts, once, at start. `revision` is the source's revision, or `unknown`.
    pub fn build_info(&self, version: &'static str, revision: &'static str, mode: RunMode) {
        let labels = vec![
            metrics::Label::from_static_parts("version", version),
            metrics::Label::from_static_parts("revision", revision),
            metrics::Label::from_static_parts("mode", mode.name()),
        ];
        metrics::Gauge::register(recorder(), &metrics::Key::from_parts(BUILD_INFO_NAME, labels)).set(1.0);
    }

    /// The exposition text (`text/plain; version=0.0.4`).
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        process::write(&mut text);
        text
    }

    /// Folds the observations since the last call into buckets: without it (or a scrape) histograms keep every single one.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The value of one series as [`Exporter::render`] shows it, such as `trunkline_ingress_events_total{channel="whatsapp",…}`;
    /// none when there is no such line.
    pub fn value(&self, series: &str) -> Option<f64> {
        let text = self.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }
}
