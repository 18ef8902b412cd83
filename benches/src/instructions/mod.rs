//! `homa-bench instructions`: what a call costs in instructions and allocations, on either side.

mod callgrind;
mod report;
mod side;

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

pub(crate) use self::side::{COMMAND as SIDE, Side, run as side};

use self::callgrind::Cost;
use self::report::Row;
use self::side::{CLIENT_THREAD, Order, Part, Place, SERVER_THREAD};
use crate::arguments::within;

/// Counts the instructions and allocations of a call, on the client's and on the server's side.
///
/// Client and server each run under valgrind's callgrind, which simulates them: it counts the instructions
/// that the side's thread executes in user space, whatever else the machine does. It needs
/// the program `valgrind` and no privileges. The counters of the processor are not used, since virtual
/// machines seldom have them. Time inside the system does not count.
///
/// Both sides run on one core, take turns, never poll and have a runtime of one thread each. Over `mem` they
/// are two threads of one process. Figures repeat within a few percent; those of a debug build say nothing.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct Arguments {
    /// Which layers, with commas between them
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "rpc,transport"
    )]
    pub(crate) layers: Vec<Layer>,
    /// Which wires, with commas between them
    #[arg(long, value_enum, value_delimiter = ',', default_value = "udp,mem")]
    pub(crate) wires: Vec<Wire>,
    /// Calls that are counted, 100 to 10,000,000; a fifth of that goes before to warm up
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = within::<u32>(100..=10_000_000))]
    pub(crate) calls: u32,
    /// Calls in progress at a time, 1 to 1,000
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within::<u32>(1..=1_000))]
    pub(crate) concurrency: u32,
    /// Bytes of the body, there and back, 1 to 960,000
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = within::<u32>(1..=960_000))]
    pub(crate) size: u32,
    /// Writes the results there: a list with an object per layer and wire
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What makes the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layer {
    /// A generated client and a service of homa-rpc
    Rpc,
    /// Messages of the transport alone, answered with their own bytes
    Transport,
}

/// What carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wire {
    /// UDP datagrams between two processes
    Udp,
    /// Messages within one process, whose sides are two threads
    Mem,
}

/// Runs the command.
///
/// # Errors
/// If counting is not possible here, with the reason, or a side failed.
pub(crate) fn main(arguments: &Arguments) -> Result<(), String> {
    callgrind::check()?;
    if cfg!(debug_assertions) {
        println!("This is a debug build: its figures say nothing about a release.");
    }
    let mut rows = Vec::new();
    for layer in &arguments.layers {
        for wire in &arguments.wires {
            let [client, server] = measure(*layer, *wire, arguments)?;
            rows.push(Row::new(*layer, *wire, arguments, client, server));
        }
    }
    print!("{}", report::table(&rows));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The costs of the client and of the server.
fn measure(layer: Layer, wire: Wire, arguments: &Arguments) -> Result<[Cost; 2], String> {
    let place = Place {
        layer,
        wire,
        concurrency: arguments.concurrency,
        size: arguments.size,
    };
    let mut client_part = Part::Both;
    let mut server = None;
    if wire == Wire::Udp {
        let (process, uri) = callgrind::Counted::start("server", &Side::new(place, Part::Server))?;
        client_part = Part::Client { uri };
        server = Some(process);
    }
    let (mut client, _uri) = callgrind::Counted::start("client", &Side::new(place, client_part))?;
    let calls = Order::Calls(arguments.calls);
    client
        .process
        .ask::<()>(&Order::Calls(arguments.calls / 5))?;
    for order in [Order::Mark, calls, Order::Mark] {
        if let (Order::Mark, Some(server)) = (&order, &mut server) {
            server.process.ask::<()>(&order)?;
        }
        client.process.ask::<()>(&order)?;
    }
    // The client first: it may tell its server to end.
    let client = client.end()?;
    let server = match server {
        Some(server) => server.end()?.of(SERVER_THREAD)?,
        None => client.of(SERVER_THREAD)?,
    };
    Ok([client.of(CLIENT_THREAD)?, server])
}
