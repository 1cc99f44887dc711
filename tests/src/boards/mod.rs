//! The dashboards of `deploy/grafana`: a table of boards and panels, and how it becomes Grafana's JSON.
//!
//! The table is the one place of truth. The JSON is checked in, and `tests/it/boards.rs` compares: change the table, then run
//! `TRUNKLINE_BLESS=1 cargo test -p system-tests --test it -- boards`.

mod edge;
mod egress;
mod grafana;
mod inside;
mod promql;

pub use grafana::{dashboard, runbooks};
pub use promql::{expression, labels, metrics};

/// A dashboard.
#[derive(Debug)]
pub struct Board {
    /// Its file's name without the end; with `trunkline-` before it, its uid.
    pub name: &'static str,
    /// As Grafana lists it.
    pub title: &'static str,
    /// Who looks at it, and for what.
    pub description: &'static str,
    /// Rows of Grafana's grid that each panel takes.
    pub height: u32,
    /// From left to right, then down.
    pub panels: Vec<Panel>,
}

/// How a panel shows its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    Timeseries,
    /// The same on a logarithmic scale.
    Logarithmic,
    /// One number for each series, as of now.
    Stat,
    /// One bar for each series, as of now.
    Bars,
    /// One line for each series, as of now.
    Table,
    /// Buckets over time, from a histogram.
    Heatmap,
    /// Buckets over time, made of the values of many series.
    Spread,
    /// States over time.
    Timeline,
}

/// What a panel's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A count.
    Count,
    /// Events per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Days.
    Days,
    /// A share between 0 and 1.
    Share,
    /// Bytes.
    Bytes,
}

/// What the live test asks of each query of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A sample that is not 0.
    Moves,
    /// A sample, which may be 0: why nothing moves it in a loaded node that is well.
    MayBeZero(&'static str),
}

/// One query of a panel.
#[derive(Debug)]
pub struct Query {
    /// The legend of its series.
    pub legend: &'static str,
    /// PromQL, without the `job` matcher; `[R]` stands for the interval that Grafana finds right for rates.
    pub text: &'static str,
}

/// A panel.
#[derive(Debug)]
pub struct Panel {
    /// What it shows.
    pub title: &'static str,
    /// How.
    pub kind: Kind,
    /// In which unit.
    pub unit: Unit,
    /// How to read it.
    pub note: &'static str,
    /// Columns of Grafana's 24.
    pub width: u32,
    /// What it asks.
    pub queries: Vec<Query>,
    /// Colour below the first step.
    pub base: &'static str,
    /// From which value which colour holds. Lines over time show a line there.
    pub steps: &'static [(f64, &'static str)],
    /// Alerts whose runbooks help on.
    pub alerts: &'static [&'static str],
    /// What the live test asks.
    pub proof: Proof,
}

impl Panel {
    /// Lines over time.
    fn lines(title: &'static str, unit: Unit) -> Self {
        Self::new(title, Kind::Timeseries, unit)
    }

    fn new(title: &'static str, kind: Kind, unit: Unit) -> Self {
        Self { title, kind, unit, note: "", width: 8, queries: Vec::new(), base: "green", steps: &[], alerts: &[], proof: Proof::Moves }
    }

    fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }

    fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    fn query(mut self, legend: &'static str, text: &'static str) -> Self {
        self.queries.push(Query { legend, text });
        self
    }

    fn steps(mut self, base: &'static str, steps: &'static [(f64, &'static str)]) -> Self {
        (self.base, self.steps) = (base, steps);
        self
    }

    fn alerts(mut self, alerts: &'static [&'static str]) -> Self {
        self.alerts = alerts;
        self
    }

    fn may_be_zero(mut self, why: &'static str) -> Self {
        self.proof = Proof::MayBeZero(why);
        self
    }
}

/// Every board, in the order of operations.md.
pub fn boards() -> Vec<Board> {
    vec![edge::overview(), edge::ingress(), inside::log(), egress::platforms(), egress::webhooks(), inside::process()]
}

/// The marks of new versions on every board: a version that did not run five minutes ago. (`changes()` of the family is always 0,
/// because a new version is a new series.)
pub const ROLL_OUTS: &str = "count by (version) (trunkline_build_info) unless count by (version) (trunkline_build_info offset 5m)";

/// Exported families that no board shows and no alert asks for, with the question that they answer.
pub const EXPLORE_ONLY: &[(&str, &str)] = &[
    ("trunkline_draining", "which process is leaving: the roll-out's own tool shows it"),
    ("trunkline_config_last_reload_successful", "did the last reload work"),
    ("trunkline_config_last_reload_success_timestamp_seconds", "when was the configuration read"),
    ("trunkline_runtime_tasks_alive", "does something leak tasks"),
    ("trunkline_runtime_queue_tasks", "does a runtime fall behind"),
    ("trunkline_http_request_size_bytes", "how large are requests"),
    ("trunkline_ingress_events_per_request", "how many events does a platform put into one request"),
    ("trunkline_log_produced_bytes_total", "how many bytes does the log take"),
    ("trunkline_webhook_response_size_bytes", "how much do subscribers answer"),
    ("trunkline_cache_entries", "how full is the cache of conversations"),
    ("trunkline_store_expired_rows_total", "does the sweep take off what is past its retention"),
    ("process_start_time_seconds", "since when does a process run"),
];
