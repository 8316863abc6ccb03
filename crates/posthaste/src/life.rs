//! Prints the life of submissions as it happens, as the API tells it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use anyhow::bail;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{http::ApiClient, table};

const POLL: Duration = Duration::from_millis(150);
const HEADINGS: [&str; 7] =
    ["seconds", "mail", "recipient", "attempt", "disposition", "reason", "what was said, by whom"];
/// Widths that keep the columns of rows which are printed one by one in line.
const WIDTHS: [usize; 6] = [7, 24, 25, 7, 13, 17];

/// A submission that is followed.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its id.
    pub id: String,
    /// What to call it in the table.
    pub title: String,
}

/// Follows submissions until every message has a final disposition; prints a
/// row for each attempt. Gives how many messages ended with each disposition.
pub async fn follow(
    api: &ApiClient,
    submissions: &[Followed],
    within: Duration,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let begin = Instant::now();
    let mut printed = HashSet::new();
    print_row(&HEADINGS.map(str::to_owned));
    loop {
        let mut ends = BTreeMap::new();
        let mut open = 0;
        for submission in submissions {
            let Some(state) = api.submission(&submission.id).await? else {
                open += 1;
                continue;
            };
            for message in state["messages"].as_array().into_iter().flatten() {
                let attempts = message["attempts"].as_array().map_or(&[][..], Vec::as_slice);
                for attempt in attempts {
                    if printed.insert(attempt["id"].to_string()) {
                        print_row(&row(begin.elapsed(), &submission.title, message, attempt));
                    }
                }
                match message["disposition"].as_str() {
                    Some(end @ ("delivered" | "undeliverable")) => {
                        *ends.entry(end.to_owned()).or_default() += 1;
                    }
                    _ => open += 1,
                }
            }
        }
        if open == 0 {
            return Ok(ends);
        }
        if begin.elapsed() > within {
            bail!("{open} of the messages have no final disposition after {within:?}");
        }
        sleep(POLL).await;
    }
}

fn row(since: Duration, title: &str, message: &Value, attempt: &Value) -> [String; 7] {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let reply = &attempt["reply"];
    let mut said = match reply["code"].as_u64() {
        Some(code) => format!("{code} {} {}", text(&reply["enhanced"]), text(&reply["text"])),
        None => text(&attempt["detail"]),
    };
    if let Some(host) = attempt["remote_host"].as_str() {
        said.push_str(&format!(" ({host}"));
        if let Some(version) = attempt["tls"]["version"].as_str() {
            said.push_str(&format!(", {version}"));
        }
        said.push(')');
    }
    [
        format!("{:.1}", since.as_secs_f64()),
        title.to_owned(),
        text(&message["recipient"]),
        attempt["attempt"].to_string(),
        text(&attempt["disposition"]),
        text(&attempt["reason"]),
        said.split_whitespace().collect::<Vec<_>>().join(" "),
    ]
}

/// One line, its columns padded to fixed widths.
fn print_row(cells: &[String; 7]) {
    let mut cells = cells.to_vec();
    for (cell, width) in cells.iter_mut().zip(WIDTHS) {
        let missing = width.saturating_sub(cell.chars().count());
        cell.push_str(&" ".repeat(missing));
    }
    for line in table::lines(&[cells]) {
        println!("{}", line.trim_end());
    }
}
