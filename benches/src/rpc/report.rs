//! The results as a table and as a file.

use std::fmt::Write as _;

use serde::Serialize;

use super::pair::Round;
use super::scenario::{Metric, Scenario};
use super::stack::Stack;
use super::usage::Usage;

/// What one stack did in one scenario, in all rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) stack: Stack,
    pub(crate) rounds: Vec<Round>,
}

/// Ratio to tonic over the rounds; above 1 is better than tonic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Outcome {
    /// Median over the rounds.
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    fn usage(&self, of: impl Fn(&Round) -> Option<Usage>) -> Option<Usage> {
        let mut total = None;
        for usage in self.rounds.iter().filter_map(of) {
            *total.get_or_insert_with(Usage::default) += usage;
        }
        total
    }

    /// Compares round by round.
    fn ratio(&self, tonic: &Self, metric: Metric) -> Option<Ratio> {
        let mut ratios: Vec<f64> = self
            .rounds
            .iter()
            .zip(&tonic.rounds)
            .map(|(ours, tonic)| match metric {
                Metric::Latency => tonic.p50_us / ours.p50_us,
                Metric::Rate => ours.calls / ours.seconds / (tonic.calls / tonic.seconds),
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio {
            least: *ratios.first()?,
            greatest: *ratios.last()?,
            median: median(ratios),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    if values.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    }
}

fn ratio(outcome: &Outcome, all: &[Outcome], scenario: Scenario) -> Option<Ratio> {
    let tonic = all.iter().find(|other| other.stack == Stack::Tonic)?;
    outcome.ratio(tonic, scenario.metric)
}

/// The table of one scenario.
pub(crate) fn table(scenario: Scenario, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{}\n  {:<11}{:>10}{:>10}{:>12}{:>9}{:>12}{:>12}{:>11}{:>11}   ratio to tonic\n",
        scenario.name,
        "",
        "P50 us",
        "P99 us",
        "calls/s",
        "MB/s",
        "client CPU",
        "server CPU",
        "pkts/send",
        "pkts/recv",
    );
    for outcome in outcomes {
        let client = outcome
            .usage(|round| Some(round.client))
            .unwrap_or_default();
        let server = outcome.usage(|round| round.server);
        let total: f64 = outcome.rounds.iter().map(|round| round.calls).sum();
        let per_call = |usage: Usage| format!("{:.2} us", usage.cpu_s * 1e6 / total);
        let (sent, received) = trains(client, server);
        let ratio = match ratio(outcome, outcomes, scenario) {
            Some(ratio) => format!(
                "{:.2} ({:.2}..{:.2})",
                ratio.median, ratio.least, ratio.greatest
            ),
            None => "-".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {:<11}{:>10.1}{:>10.1}{:>12.0}{:>9.1}{:>12}{:>12}{:>11}{:>11}   {ratio}",
            outcome.stack.name(),
            outcome.median(|round| round.p50_us),
            outcome.median(|round| round.p99_us),
            outcome.median(|round| round.calls / round.seconds),
            outcome.median(|round| round.bytes / round.seconds / 1e6),
            per_call(client),
            server.map_or_else(|| "-".to_owned(), per_call),
            sent,
            received,
        );
    }
    text
}

/// Mean packets per system call of client/server, sent and received.
fn trains(client: Usage, server: Option<Usage>) -> (String, String) {
    let mean = |packets: f64, calls: f64| {
        if calls > 0.0 {
            format!("{:.1}", packets / calls)
        } else {
            "-".to_owned()
        }
    };
    let both = |of: fn(Usage) -> (f64, f64)| {
        let of = |usage: Usage| {
            let (packets, calls) = of(usage);
            mean(packets, calls)
        };
        match server {
            Some(server) => format!("{}/{}", of(client), of(server)),
            None => of(client),
        }
    };
    (
        both(|usage| (usage.packets_sent, usage.send_calls)),
        both(|usage| (usage.packets_received, usage.receive_calls)),
    )
}

/// The file: a list with an object per scenario and stack.
///
/// # Errors
/// If that cannot be written as JSON.
pub(crate) fn json(results: &[(Scenario, Vec<Outcome>)]) -> Result<String, String> {
    let of_scenario = |(scenario, outcomes): &(Scenario, Vec<Outcome>)| {
        let object = |outcome| Object::new(*scenario, outcome, outcomes);
        outcomes.iter().map(object).collect::<Vec<_>>()
    };
    let objects: Vec<_> = results.iter().flat_map(of_scenario).collect();
    let text = serde_json::to_string_pretty(&objects).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

/// Medians over the rounds, except CPU times, which are totals. What is not finite is `null` in JSON.
#[derive(Serialize)]
struct Object {
    scenario: &'static str,
    stack: &'static str,
    p50_us: f64,
    p99_us: f64,
    calls_per_s: f64,
    mb_per_s: f64,
    client_cpu_s: Option<f64>,
    server_cpu_s: Option<f64>,
    ratio_vs_tonic: Option<f64>,
    ratio_spread: Option<[f64; 2]>,
}

impl Object {
    fn new(scenario: Scenario, outcome: &Outcome, all: &[Outcome]) -> Self {
        let ratio = ratio(outcome, all, scenario);
        Self {
            scenario: scenario.name,
            stack: outcome.stack.name(),
            p50_us: outcome.median(|round| round.p50_us),
            p99_us: outcome.median(|round| round.p99_us),
            calls_per_s: outcome.median(|round| round.calls / round.seconds),
            mb_per_s: outcome.median(|round| round.bytes / round.seconds / 1e6),
            client_cpu_s: outcome
                .usage(|round| Some(round.client))
                .map(|usage| usage.cpu_s),
            server_cpu_s: outcome.usage(|round| round.server).map(|usage| usage.cpu_s),
            ratio_vs_tonic: ratio.map(|ratio| ratio.median),
            ratio_spread: ratio.map(|ratio| [ratio.least, ratio.greatest]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(calls: f64, p50_us: f64) -> Round {
        Round {
            calls,
            bytes: calls * 100.0,
            seconds: 0.5,
            p50_us,
            p99_us: 2.0 * p50_us,
            client: Usage::of([0.5, 40.0, 10.0, 30.0, 10.0]),
            server: Some(Usage::of([0.25, 8.0, 4.0, 0.0, 0.0])),
        }
    }

    fn outcomes() -> Vec<Outcome> {
        vec![
            Outcome {
                stack: Stack::Tonic,
                rounds: vec![round(100.0, 100.0), round(200.0, 120.0), round(100.0, 90.0)],
            },
            Outcome {
                stack: Stack::HomaUdp,
                rounds: vec![round(400.0, 50.0), round(400.0, 40.0), round(300.0, 90.0)],
            },
        ]
    }

    #[test]
    fn ratios_are_above_one_where_better_and_taken_round_by_round() {
        let all = outcomes();
        let latency = all[1].ratio(&all[0], Metric::Latency).unwrap();
        assert_eq!(
            (latency.least, latency.median, latency.greatest),
            (1.0, 2.0, 3.0)
        );
        let rate = all[1].ratio(&all[0], Metric::Rate).unwrap();
        assert_eq!((rate.least, rate.median, rate.greatest), (2.0, 3.0, 4.0));
    }

    #[test]
    fn the_file_has_one_object_per_scenario_and_stack_with_all_keys() {
        let text = json(&[(Scenario::ALL[0], outcomes())]).unwrap();
        let objects: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "scenario": "latency_100B", "stack": "homa+udp", "p50_us": 50.0, "p99_us": 100.0,
            "calls_per_s": 800.0, "mb_per_s": 0.08, "client_cpu_s": 1.5, "server_cpu_s": 0.75,
            "ratio_vs_tonic": 2.0, "ratio_spread": [1.0, 3.0],
        });
        assert_eq!(objects[0]["scenario"], "latency_100B");
        assert_eq!(objects[1], expected);
        assert_eq!(objects[2], serde_json::Value::Null);
    }

    #[test]
    fn without_tonic_there_is_no_ratio() {
        let ours = outcomes().split_off(1);
        let text = json(&[(Scenario::ALL[0], ours)]).unwrap();
        assert!(text.contains("\"ratio_spread\": null"), "{text}");
    }

    #[test]
    fn the_table_shows_packets_per_system_call_of_both_ends() {
        let table = table(Scenario::ALL[0], &outcomes());
        assert!(
            table.contains("4.0/2.0") && table.contains("3.0/-"),
            "{table}"
        );
    }
}
