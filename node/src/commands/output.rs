//! What people and programs see: lines, tables, JSON. Errors of writing are errors, so that `| head` ends quietly.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// Widest column of a table.
const COLUMN_MAX: usize = 60;
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Where a command writes.
pub struct Screen {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether a person watches the output grow.
    pub is_terminal: bool,
    has_colour: bool,
    /// Whether output is for programs.
    pub json: bool,
}

impl Screen {
    /// The process's own output. `NO_COLOR` is respected.
    pub fn of_process(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), is_terminal, has_colour: is_terminal && !no_colour, json }
    }

    /// Output for tests: never a terminal unless told, never coloured.
    #[cfg(test)]
    pub fn to(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, is_terminal: bool, json: bool) -> Self {
        Self { out, err, is_terminal, has_colour: false, json }
    }

    /// A line.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A part of a line that is to grow.
    pub fn part(&mut self, text: &str) -> io::Result<()> {
        write!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A remark beside the output, to the error stream: programs that read the output do not see it.
    pub fn note(&mut self, text: &str) {
        // Nothing is left to tell of a closed error stream.
        let _ = writeln!(self.err, "{text}");
    }

    /// JSON in many lines.
    pub fn pretty(&mut self, value: &Value) -> io::Result<()> {
        self.line(&format!("{value:#}"))
    }

    /// Text in green or red on a terminal.
    pub fn coloured(&self, text: &str, is_good: bool) -> String {
        let colour = if is_good { GREEN } else { RED };
        if self.has_colour { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }

    /// A table of the named members of each row.
    pub fn table(&mut self, columns: &[&str], rows: &[Value]) -> io::Result<()> {
        let cells: Vec<Vec<String>> = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect();
        let width = |at: usize| cells.iter().map(|row| row[at].chars().count()).chain([columns[at].len()]).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let titles = columns.iter().map(|column| column.to_uppercase().replace('_', " ")).collect();
        for row in std::iter::once(titles).chain(cells.iter().cloned()) {
            let mut line = String::new();
            for (text, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{text:<width$}  "));
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// An object, a line per member.
    pub fn members(&mut self, value: &Value) -> io::Result<()> {
        let Value::Object(members) = value else { return self.pretty(value) };
        let width = members.keys().map(String::len).max().unwrap_or_default();
        for (name, value) in members {
            self.line(&format!("{name:<width$}  {}", plain(value)))?;
        }
        Ok(())
    }
}

fn cell(row: &Value, column: &str) -> String {
    let text = row.get(column).map(plain).unwrap_or_default();
    if text.chars().count() <= COLUMN_MAX {
        return text;
    }
    let mut short: String = text.chars().take(COLUMN_MAX - 1).collect();
    short.push('…');
    short
}

/// A value for people: texts without quotes, lists with commas. Control characters are shown as `?`: names come from strangers.
pub fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `2 ms`, `1.2 s`, `2 min 3 s`.
pub fn span(duration: std::time::Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::fake::Seen;

    #[test]
    fn tables_line_up_and_keep_strangers_in_their_cells() {
        let seen = Seen::default();
        let mut screen = seen.screen(false, false);
        let rows = [json!({"id": "acc_1", "name": "a\u{1b}[2Jb", "paused": true}), json!({"id": "acc_22", "events": ["x", "y"]})];
        screen.table(&["id", "name", "events"], &rows).unwrap();
        assert_eq!(seen.out(), "ID      NAME    EVENTS\nacc_1   a?[2Jb\nacc_22          x, y\n");
    }

    #[test]
    fn spans() {
        let cases = [(2, "2 ms"), (999, "999 ms"), (1_250, "1.2 s"), (59_999, "59.9 s"), (123_000, "2 min 3 s")];
        for (ms, text) in cases {
            assert_eq!(super::span(Duration::from_millis(ms)), text);
        }
    }
}
