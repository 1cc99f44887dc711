//! How a board becomes Grafana's JSON.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Board, Kind, Panel, Proof, ROLL_OUTS, Unit, expression};

/// The form of the JSON that this module writes: Grafana 12 takes it as it is, and newer ones bring it up to date.
const SCHEMA_VERSION: u32 = 41;
/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;
/// Boards link each other by it.
const TAG: &str = "trunkline";
/// The board of the runbooks.
const RUNBOOKS: &str = "runbooks";
/// Columns and rows of a runbook.
const RUNBOOK_SIZE: (u32, u32) = (12, 9);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dashboard<'a> {
    uid: String,
    title: &'a str,
    description: &'a str,
    tags: [&'a str; 1],
    schema_version: u32,
    version: u32,
    editable: bool,
    /// One crosshair over all panels.
    graph_tooltip: u8,
    refresh: &'a str,
    time: Span<'a>,
    timezone: &'a str,
    links: Vec<Link>,
    templating: List<Value>,
    annotations: List<Value>,
    panels: Vec<Shown>,
}

#[derive(Serialize)]
struct Span<'a> {
    from: &'a str,
    to: &'a str,
}

#[derive(Serialize)]
struct List<T> {
    list: Vec<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    title: String,
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    tags: Vec<&'static str>,
    as_dropdown: bool,
    include_vars: bool,
    keep_time: bool,
    target_blank: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: u32,
    title: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    grid_pos: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    datasource: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_config: Option<FieldConfig>,
    options: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transformations: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
}

#[derive(Serialize, Clone, Copy)]
struct Position {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Serialize)]
struct FieldConfig {
    defaults: Defaults,
    overrides: Vec<Value>,
}

#[derive(Serialize)]
struct Defaults {
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    color: Value,
    thresholds: Thresholds,
    custom: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
}

#[derive(Serialize)]
struct Thresholds {
    mode: &'static str,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    color: &'static str,
    value: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    ref_id: String,
    datasource: Value,
    expr: String,
    legend_format: &'static str,
    format: &'static str,
    instant: bool,
    range: bool,
}

/// A board as the text of its file. `alerts` are those that have a runbook, in the order of `runbooks.md`.
///
/// # Panics
/// When a panel names an alert that has no runbook.
pub fn dashboard(board: &Board, alerts: &[&str]) -> String {
    let mut flow = Flow::default();
    let panels = board.panels.iter().zip(1..).map(|(panel, id)| shown(panel, id, flow.place(panel.width, board.height), alerts)).collect();
    let frame = frame(board.name, board.title, board.description, panels);
    let roll_outs = json!({
        "name": "New versions", "datasource": datasource(), "enable": true, "iconColor": "blue", "expr": expression(ROLL_OUTS),
        "titleFormat": "Roll-out", "textFormat": "{{version}}", "step": "60s",
    });
    text(&Dashboard { templating: List { list: variables() }, annotations: List { list: vec![roll_outs] }, ..frame })
}

/// The board of the runbooks, from the text of `deploy/prometheus/runbooks.md`: the panels of the others link to its sections.
pub fn runbooks(markdown: &str) -> String {
    let (width, height) = RUNBOOK_SIZE;
    let mut flow = Flow::default();
    let sections = markdown.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, "")));
    let panels = sections.zip(1..).map(|((title, body), id)| Shown {
        id,
        title: title.to_owned(),
        kind: "text",
        description: String::new(),
        grid_pos: flow.place(width, height),
        datasource: None,
        links: Vec::new(),
        field_config: None,
        options: json!({"mode": "markdown", "content": body.trim()}),
        transformations: Vec::new(),
        targets: Vec::new(),
    });
    let description = "What each alert means, and what to do. Made of deploy/prometheus/runbooks.md.";
    text(&frame(RUNBOOKS, "Trunkline: runbooks", description, panels.collect()))
}

fn text(dashboard: &Dashboard<'_>) -> String {
    let mut text = serde_json::to_string_pretty(dashboard).expect("a board is JSON");
    text.push('\n');
    text
}

/// What every board has, without variables and annotations.
fn frame<'a>(name: &str, title: &'a str, description: &'a str, panels: Vec<Shown>) -> Dashboard<'a> {
    let boards = Link {
        kind: "dashboards",
        tags: vec![TAG],
        include_vars: true,
        keep_time: true,
        target_blank: false,
        ..link("Boards", String::new())
    };
    Dashboard {
        uid: uid(name),
        title,
        description,
        tags: [TAG],
        schema_version: SCHEMA_VERSION,
        version: 1,
        editable: false,
        graph_tooltip: 1,
        refresh: "30s",
        time: Span { from: "now-3h", to: "now" },
        timezone: "browser",
        links: vec![boards],
        templating: List { list: Vec::new() },
        annotations: List { list: Vec::new() },
        panels,
    }
}

fn uid(name: &str) -> String {
    format!("trunkline-{name}")
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// `$datasource`, and `$job`: all jobs that run Trunkline, until somebody chooses.
fn variables() -> Vec<Value> {
    let source = json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1});
    let query = "label_values(trunkline_build_info, job)";
    let job = json!({
        "name": "job", "label": "Job", "type": "query", "datasource": datasource(), "definition": query,
        "query": {"query": query, "refId": "job"}, "refresh": 2, "sort": 1, "multi": true, "includeAll": true,
        "current": {"text": "All", "value": "$__all"},
    });
    vec![source, job]
}

fn link(title: &str, url: String) -> Link {
    let title = title.to_owned();
    Link {
        title,
        kind: "link",
        url,
        tags: Vec::new(),
        as_dropdown: false,
        include_vars: false,
        keep_time: false,
        // Nobody loses what they look at.
        target_blank: true,
    }
}

/// Places panels from left to right, then down.
#[derive(Default)]
struct Flow {
    x: u32,
    y: u32,
}

impl Flow {
    fn place(&mut self, w: u32, h: u32) -> Position {
        if self.x + w > COLUMNS {
            self.x = 0;
            self.y += h;
        }
        let position = Position { x: self.x, y: self.y, w, h };
        self.x += w;
        position
    }
}

fn shown(panel: &Panel, id: u32, grid_pos: Position, alerts: &[&str]) -> Shown {
    let runbook = |alert: &&str| {
        let at = alerts.iter().position(|known| known == alert).unwrap_or_else(|| panic!("{}: {alert} has no runbook", panel.title));
        link(&format!("Runbook: {alert}"), format!("/d/{}?viewPanel=panel-{}", uid(RUNBOOKS), at + 1))
    };
    let (kind, options, custom) = looks(panel);
    let mut transformations = Vec::new();
    if panel.kind == Kind::Table {
        // A table is of labels: the time and the value 1 say nothing.
        transformations.push(json!({"id": "organize", "options": {"excludeByName": {"Time": true, "Value": true, "__name__": true}}}));
    }
    Shown {
        id,
        title: panel.title.to_owned(),
        kind,
        description: panel.note.to_owned(),
        grid_pos,
        datasource: Some(datasource()),
        links: panel.alerts.iter().map(runbook).collect(),
        field_config: Some(FieldConfig { defaults: defaults(panel, custom), overrides: Vec::new() }),
        options,
        transformations,
        targets: panel.queries.iter().zip('A'..).map(|(query, letter)| target(panel.kind, query, letter)).collect(),
    }
}

/// Grafana's name of a kind, its options and its fields' own settings.
fn looks(panel: &Panel) -> (&'static str, Value, Value) {
    let legend = json!({"displayMode": "list", "placement": "bottom", "showLegend": true});
    let over_time = json!({"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}});
    let lines = |scale: Value| {
        let thresholds = if panel.steps.is_empty() { "off" } else { "line" };
        json!({"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": false, "scaleDistribution": scale,
            "thresholdsStyle": {"mode": thresholds}})
    };
    let last = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
    let heat = |calculate: bool| {
        json!({"calculate": calculate, "yAxis": {"unit": unit(panel.unit), "axisPlacement": "left"}, "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
            "filterValues": {"le": 1e-9}, "tooltip": {"mode": "single", "yHistogram": true}, "legend": {"show": true}})
    };
    match panel.kind {
        Kind::Timeseries => ("timeseries", over_time, lines(json!({"type": "linear"}))),
        Kind::Logarithmic => ("timeseries", over_time, lines(json!({"type": "symlog", "log": 10, "linearThreshold": 1}))),
        Kind::Stat => (
            "stat",
            json!({"reduceOptions": last, "colorMode": "background", "graphMode": "none", "textMode": "value_and_name"}),
            json!({}),
        ),
        Kind::Bars => (
            "bargauge",
            json!({"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic", "showUnfilled": true}),
            json!({}),
        ),
        Kind::Table => ("table", json!({"showHeader": true, "cellHeight": "sm"}), json!({"align": "auto", "filterable": true})),
        Kind::Heatmap => ("heatmap", heat(false), json!({})),
        Kind::Spread => ("heatmap", heat(true), json!({})),
        Kind::Timeline => (
            "state-timeline",
            json!({"showValue": "never", "mergeValues": true, "legend": legend}),
            json!({"fillOpacity": 70, "lineWidth": 0}),
        ),
    }
}

fn defaults(panel: &Panel, custom: Value) -> Defaults {
    let first = Step { color: panel.base, value: None };
    let further = panel.steps.iter().map(|(value, color)| Step { color, value: Some(*value) });
    let color = match panel.kind {
        Kind::Timeseries | Kind::Logarithmic => json!({"mode": "palette-classic"}),
        Kind::Stat | Kind::Bars | Kind::Table | Kind::Heatmap | Kind::Spread | Kind::Timeline => json!({"mode": "thresholds"}),
    };
    let mut links = Vec::new();
    if panel.kind == Kind::Table {
        links.push(link("Runbooks", format!("/d/{}", uid(RUNBOOKS))));
    }
    let is_share = panel.unit == Unit::Share;
    Defaults {
        unit: unit(panel.unit),
        min: (is_share && panel.kind != Kind::Stat).then_some(0.0),
        max: is_share.then_some(1.0),
        color,
        thresholds: Thresholds { mode: "absolute", steps: std::iter::once(first).chain(further).collect() },
        custom,
        links,
    }
}

fn target(kind: Kind, query: &super::Query, letter: char) -> Target {
    let (format, instant) = match kind {
        Kind::Timeseries | Kind::Logarithmic | Kind::Spread | Kind::Timeline => ("time_series", false),
        Kind::Heatmap => ("heatmap", false),
        Kind::Stat | Kind::Bars => ("time_series", true),
        Kind::Table => ("table", true),
    };
    Target {
        ref_id: letter.to_string(),
        datasource: datasource(),
        expr: expression(query.text),
        legend_format: query.legend,
        format,
        instant,
        range: !instant,
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "short",
        Unit::PerSecond => "reqps",
        Unit::Seconds => "s",
        Unit::Days => "d",
        Unit::Share => "percentunit",
        Unit::Bytes => "bytes",
    }
}

impl Proof {
    /// Whether a value satisfies it. What is not a number shows nothing.
    pub fn accepts(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Moves => value != 0.0,
                Self::MayBeZero(_) => true,
            }
    }
}
