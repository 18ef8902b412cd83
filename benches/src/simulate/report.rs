//! Results as a table, as JSON and as CSV.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::experiment::Outcome;
use super::published::Slowdown;
use super::settings::name;
use super::slowdown::short_half;

/// Shares of the messages, shortest first, at which the table shows the slowdown.
const PERCENTILES: [f64; 13] = [
    1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 100.0,
];

/// A table for people: the 99th percentile of the slowdown beside the published one.
pub(crate) fn table(outcome: &Outcome, took: Duration) -> String {
    let plan = &outcome.plan;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} at {:.0} %, {}: {} messages in {} s simulated, utilisation {:.3} (message bytes {:.3})",
        name(plan.workload).to_uppercase(),
        plan.load * 100.0,
        plan.mode.name(),
        outcome.slowdowns.messages(),
        plan.seconds,
        outcome.utilisation,
        outcome.offered,
    );
    let rate = outcome.packets as f64 / took.as_secs_f64();
    let _ = writeln!(
        out,
        "{} packets in {:.1} s: {:.2} million per second; digest {:016x}",
        outcome.packets,
        took.as_secs_f64(),
        rate / 1e6,
        outcome.digest,
    );
    let (heads, sizes, ours, published) = rows(outcome);
    for (label, row) in [
        ("percentile of messages", heads),
        ("size up to (B)", sizes),
        ("P99 slowdown", ours),
        ("published", published),
    ] {
        let _ = write!(out, "  {label:<24}");
        for cell in row {
            let _ = write!(out, "{cell:>8}");
        }
        out.push('\n');
    }
    let (p99, mean) =
        published_short_half(outcome).map_or((String::new(), String::new()), |slowdown| {
            let show = |value: f64| format!(" (published {value:.3})");
            (show(slowdown.p99), show(slowdown.mean))
        });
    let _ = writeln!(
        out,
        "  shortest half of the messages: P99 slowdown {:.3}{p99}, mean {:.3}{mean}",
        outcome.slowdowns.p99_short_half(),
        outcome.slowdowns.mean_short_half(),
    );
    match outcome.objection() {
        Some(reason) => {
            let _ = writeln!(out, "  NO EVIDENCE: {reason}\n");
        }
        None => out.push('\n'),
    }
    out
}

type Row = Vec<String>;

fn rows(outcome: &Outcome) -> (Row, Row, Row, Row) {
    let bins = outcome.slowdowns.bins();
    let mut rows = (Row::new(), Row::new(), Row::new(), Row::new());
    let mut wanted = PERCENTILES.iter().peekable();
    let mut seen = 0.0;
    for (index, bin) in bins.iter().enumerate() {
        seen += bin.published.percent_of_messages;
        let last = index + 1 == bins.len();
        while let Some(percentile) = wanted.next_if(|wanted| {
            if **wanted < 100.0 {
                **wanted <= seen
            } else {
                last
            }
        }) {
            let published = bin.published.at(outcome.plan.load);
            rows.0.push(format!("{percentile}"));
            rows.1.push(size(bin.published.size_max));
            rows.2.push(match bin.messages {
                0 => "-".to_owned(),
                _ => format!("{:.2}", bin.quantile(0.99)),
            });
            rows.3.push(
                published.map_or("-".to_owned(), |published| format!("{:.2}", published.p99)),
            );
        }
    }
    rows
}

fn size(bytes: u32) -> String {
    match bytes {
        0..10_000 => bytes.to_string(),
        10_000..1_000_000 => format!("{:.1}k", f64::from(bytes) / 1e3),
        _ => format!("{:.2}M", f64::from(bytes) / 1e6),
    }
}

fn published_short_half(outcome: &Outcome) -> Option<Slowdown> {
    let load = outcome.plan.load;
    let bins = outcome.slowdowns.bins();
    bins.first()?.published.at(load)?;
    let over = |value: fn(Slowdown) -> f64| {
        short_half(bins.iter().map(|bin| {
            let published = bin.published.at(load).map_or(f64::NAN, value);
            (bin.published.percent_of_messages, published)
        }))
    };
    Some(Slowdown {
        mean: over(|slowdown| slowdown.mean),
        p99: over(|slowdown| slowdown.p99),
    })
}

/// A list of objects, one per run.
///
/// # Errors
/// If that cannot be written as JSON.
pub(crate) fn json(outcomes: &[Outcome]) -> Result<String, String> {
    let runs: Vec<_> = outcomes.iter().map(Run::new).collect();
    let text = serde_json::to_string_pretty(&runs).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

/// What is not finite is `null` in JSON, and so is what was not published.
#[derive(Serialize)]
struct Run {
    workload: &'static str,
    mode: &'static str,
    nominal_load: f64,
    utilisation: f64,
    message_bytes: f64,
    messages: u64,
    packets: u64,
    seconds: f64,
    hosts: usize,
    seed: u64,
    no_evidence: Option<String>,
    p99_slowdown_short_half: f64,
    published_p99_slowdown_short_half: Option<f64>,
    mean_slowdown_short_half: f64,
    published_mean_slowdown_short_half: Option<f64>,
    bins: Vec<RunBin>,
}

#[derive(Serialize)]
struct RunBin {
    size_max: u32,
    messages: u64,
    mean: f64,
    p50: f64,
    p99: f64,
    published_p99: Option<f64>,
}

impl Run {
    fn new(outcome: &Outcome) -> Self {
        let plan = &outcome.plan;
        let published = published_short_half(outcome);
        let bins = outcome.slowdowns.bins().iter();
        let bins = bins.filter(|bin| bin.messages > 0).map(|bin| RunBin {
            size_max: bin.published.size_max,
            messages: bin.messages,
            mean: bin.mean(),
            p50: bin.quantile(0.5),
            p99: bin.quantile(0.99),
            published_p99: bin.published.at(plan.load).map(|published| published.p99),
        });
        Self {
            workload: name(plan.workload),
            mode: plan.mode.name(),
            nominal_load: plan.load,
            utilisation: outcome.utilisation,
            message_bytes: outcome.offered,
            messages: outcome.slowdowns.messages(),
            packets: outcome.packets,
            seconds: plan.seconds,
            hosts: plan.hosts,
            seed: plan.seed,
            no_evidence: outcome.objection(),
            p99_slowdown_short_half: outcome.slowdowns.p99_short_half(),
            published_p99_slowdown_short_half: published.map(|published| published.p99),
            mean_slowdown_short_half: outcome.slowdowns.mean_short_half(),
            published_mean_slowdown_short_half: published.map(|published| published.mean),
            bins: bins.collect(),
        }
    }
}

/// One row per run and size bin.
pub(crate) fn csv(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        "workload,mode,nominal_load,utilisation,size_max,messages,mean,p50,p99,published_p99\n",
    );
    for outcome in outcomes {
        let plan = &outcome.plan;
        for bin in outcome
            .slowdowns
            .bins()
            .iter()
            .filter(|bin| bin.messages > 0)
        {
            let published = bin.published.at(plan.load);
            let _ = writeln!(
                out,
                "{},{},{},{:.4},{},{},{:.4},{:.4},{:.4},{}",
                name(plan.workload),
                plan.mode.name(),
                plan.load,
                outcome.utilisation,
                bin.published.size_max,
                bin.messages,
                bin.mean(),
                bin.quantile(0.5),
                bin.quantile(0.99),
                published.map_or(String::new(), |published| published.p99.to_string()),
            );
        }
    }
    out
}
