//! Printing: tables for people, the API's JSON for programs.

use std::io::{ErrorKind, Write};

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use conductor::api::Outcome;
use serde::de::DeserializeOwned;

use super::args::Output;
use super::client::Reply;
use super::failure::Failure;

/// Prints answers in the form that was asked for.
pub(super) struct Printer {
    output: Output,
}

impl Printer {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }

    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Prints an answer: as it is, or as the text that `render` makes of it.
    pub(super) fn answer<T: DeserializeOwned>(
        &self,
        reply: &Reply,
        render: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        let value: T = reply.read()?;
        if self.is_json() {
            line(&json(&reply.read()?))?;
        } else {
            let text = render(&value);
            if !text.is_empty() {
                line(&text)?;
            }
        }
        Ok(value)
    }
}

/// JSON with indentation.
pub(super) fn json(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// Tells what a person should know about a change; an error if a node could not do it.
pub(super) fn outcome(outcome: Outcome) -> Result<(), Failure> {
    for note in &outcome.notes {
        eprintln!("note: {note}");
    }
    if !outcome.waiting_for.is_empty() {
        eprintln!(
            "note: decided, but not yet in effect on node {}; `conductor node list` shows when \
             they have applied revision {}",
            outcome.waiting_for.join(", "),
            outcome.revision
        );
    }
    if outcome.problems.is_empty() { Ok(()) } else { Err(Failure::NotEffective(outcome.problems)) }
}

/// Prints a line.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        result => result.map_err(Failure::other("cannot print")),
    }
}

/// A table with a header; `empty` when there are no rows.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    empty: &str,
) -> String {
    let mut table = new_table();
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| clean(&cell))));
    if table.is_empty() { empty.to_owned() } else { table.to_string() }
}

/// A table of names and values.
pub(super) fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    let mut table = new_table();
    table.add_rows(facts.map(|(name, value)| [name.to_owned(), clean(&value)]));
    table.to_string()
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).force_no_tty();
    table
}

/// Paths and errors come from elsewhere; none of them may move the cursor.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// A value that may be missing.
pub(super) fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// The word that the API uses for a value.
pub(super) fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// A moment, in UTC.
pub(super) fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(seconds) else { return "-".to_owned() };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}
