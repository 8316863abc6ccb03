//! `posthaste queue verify` and `compact`: the directory as a whole.

use std::process::ExitCode;

use posthaste_broker::embedded::offline;
use serde_json::{Value, json};

use super::{
    Opened, out,
    place::{Site, explain},
    progress::Progress,
};

/// Reads everything, and says what is damaged.
pub async fn verify(site: &Site, json: bool) -> anyhow::Result<ExitCode> {
    let dir = site.queue.clone();
    let reading = tokio::task::spawn_blocking(move || offline::verify(&dir));
    let read = Progress::new("reading the queue", None).during(reading).await?;
    let report = read.map_err(|error| explain(&site.queue, error))?;
    let is_whole = report.problems.is_empty() && report.damaged_messages == 0;
    if json {
        let problem = |problem: &offline::Problem| {
            json!({
                "file": problem.path.display().to_string(),
                "offset": problem.offset,
                "why": problem.why,
            })
        };
        out::json(&json!({
            "whole": is_whole,
            "segments": report.segments,
            "frames": report.frames,
            "messages": report.messages,
            "damaged_messages": report.damaged_messages,
            "shared_bodies": report.bodies,
            "bytes": report.bytes,
            "problems": report.problems.iter().map(problem).collect::<Vec<Value>>(),
        }))?;
    } else {
        let problems = report.problems.iter().map(|problem| {
            format!("{} at byte {}: {}", problem.path.display(), problem.offset, problem.why)
        });
        let mut lines: Vec<String> = problems.collect();
        let read = format!(
            "{} segments, {} frames, {}, {} read",
            report.segments,
            report.frames,
            out::messages(report.messages),
            out::size(report.bytes),
        );
        lines.push(if is_whole {
            format!("{read}: whole")
        } else {
            format!(
                "{read}: DAMAGED in {} places, {} damaged",
                report.problems.len(),
                out::messages(report.damaged_messages)
            )
        });
        out::lines(lines)?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Frees what can be freed.
pub async fn compact(opened: &Opened, json: bool) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new("compacting", None);
    let report = progress.during(opened.queue.compact()).await?;
    drop(progress);
    if json {
        out::json(&json!({
            "segments": report.segments,
            "copied": report.copied,
            "before": report.before,
            "after": report.after,
        }))?;
    } else {
        out::lines([format!(
            "{} before, {} after: {} segments freed, {} copied",
            out::size(report.before),
            out::size(report.after),
            report.segments,
            out::size(report.copied),
        )])?;
    }
    Ok(ExitCode::SUCCESS)
}
