//! `homa-bench rpc`: calls over homa-rpc, tonic and bare sockets, side by side.

mod arguments;
mod child;
mod floor;
mod floor_tcp;
mod floor_udp;
mod homa;
mod load;
mod pair;
mod report;
mod scenario;
pub(crate) mod service;
mod stack;
mod stream;
mod tonic;
mod usage;

use std::fs;

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

pub(crate) use self::arguments::Arguments;
pub(crate) use self::child::{Role, client, server};
pub(crate) use self::pair::{CLIENT, SERVER};
use self::pair::{Pair, Place};
use self::report::Outcome;
use self::scenario::Scenario;
use crate::progress;

/// Length of the round before the first that counts, in milliseconds.
const WARM_UP_MS: u64 = 100;

/// Runs the command.
///
/// # Errors
/// If nothing can be measured, or a stack failed.
pub(crate) fn main(arguments: &Arguments) -> Result<(), String> {
    let place = place(arguments)?;
    println!(
        "client on core {}, server on core {}, {} rounds of {} s{}",
        place.client_core,
        place.server_core,
        arguments.rounds,
        arguments.seconds,
        if place.polling { "" } else { ", sleeping" },
    );
    let mut pairs = Vec::new();
    for stack in &arguments.stacks {
        match Pair::start(*stack, place) {
            Ok(pair) => pairs.push(pair),
            Err(reason) => println!("{} cannot run here: {reason}", stack.name()),
        }
    }
    println!();
    if pairs.is_empty() {
        return Err("there is nothing to measure".to_owned());
    }
    let mut results = Vec::new();
    for scenario in &arguments.scenarios {
        let outcomes = measure(*scenario, &mut pairs, arguments)?;
        println!("{}", report::table(*scenario, &outcomes));
        results.push((*scenario, outcomes));
        // After each scenario, so that a long series that is stopped has not been in vain.
        if let Some(path) = &arguments.json {
            fs::write(path, report::json(&results)?)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
    }
    Ok(())
}

/// All rounds of all stacks, in turns. Each round another stack begins.
fn measure(
    scenario: Scenario,
    pairs: &mut [Pair],
    arguments: &Arguments,
) -> Result<Vec<Outcome>, String> {
    let mut pairs: Vec<_> = pairs
        .iter_mut()
        .filter(|pair| scenario.has_floor() || !pair.stack.is_floor())
        .collect();
    let mut outcomes: Vec<_> = pairs
        .iter()
        .map(|pair| Outcome {
            stack: pair.stack,
            rounds: Vec::new(),
        })
        .collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "10 to 600,000"
    )]
    let ms = (arguments.seconds * 1000.0) as u64;
    let stacks = pairs.len();
    for round in 0..=arguments.rounds {
        for turn in 0..stacks {
            let index = (round + turn) % stacks;
            let (Some(pair), Some(outcome)) = (pairs.get_mut(index), outcomes.get_mut(index))
            else {
                continue;
            };
            let stack = pair.stack.name();
            let failed = |error| format!("{stack}, {}: {error}", scenario.name);
            progress::show(&format!(
                "{} round {round}/{}: {stack:<11}",
                scenario.name, arguments.rounds
            ));
            if round == 0 {
                pair.run(scenario, WARM_UP_MS.max(ms / 2)).map_err(failed)?;
                continue;
            }
            let done = pair.run(scenario, ms).map_err(failed)?;
            if done.calls < 1.0 {
                let error = format!("not one call ended within {ms} ms: use longer --seconds");
                return Err(failed(error));
            }
            outcome.rounds.push(done);
        }
    }
    progress::clear();
    Ok(outcomes)
}

/// The cores for both ends.
fn place(arguments: &Arguments) -> Result<Place, String> {
    let allowed = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| format!("cannot find out which cores there are: {error}"))?;
    let allowed: Vec<_> = (0..nix::sched::CpuSet::count())
        .filter(|core| allowed.is_set(*core).unwrap_or(false))
        .collect();
    let (client_core, server_core) = match (arguments.cores, allowed.as_slice()) {
        (Some(cores), _) => cores,
        (None, [client, server, ..]) => (*client, *server),
        (None, [only]) => {
            println!("only core {only} is allowed: client and server share it");
            (*only, *only)
        }
        (None, []) => return Err("no core is allowed".to_owned()),
    };
    if let Some(core) = [client_core, server_core]
        .into_iter()
        .find(|core| !allowed.contains(core))
    {
        return Err(format!(
            "core {core} cannot be used: this process may run on {allowed:?}"
        ));
    }
    Ok(Place {
        client_core,
        server_core,
        polling: arguments.polling,
    })
}
