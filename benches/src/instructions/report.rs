//! The results as a table and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::callgrind::Cost;
use super::{Arguments, Layer, Wire};

/// What was counted for one layer and wire.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    layer: Layer,
    wire: Wire,
    calls: u32,
    concurrency: u32,
    bytes: u32,
    client: PerCall,
    server: PerCall,
}

/// Means over the calls.
#[derive(Clone, Copy, Debug, Serialize)]
struct PerCall {
    instructions: f64,
    allocations: f64,
}

impl Row {
    pub(crate) fn new(
        layer: Layer,
        wire: Wire,
        arguments: &Arguments,
        client: Cost,
        server: Cost,
    ) -> Self {
        let calls = f64::from(arguments.calls);
        let per_call = |cost: Cost| PerCall {
            instructions: cost.instructions as f64 / calls,
            allocations: cost.allocations as f64 / calls,
        };
        Self {
            layer,
            wire,
            calls: arguments.calls,
            concurrency: arguments.concurrency,
            bytes: arguments.size,
            client: per_call(client),
            server: per_call(server),
        }
    }
}

/// A table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "                    instructions per call        allocations per call\n  \
         layer      wire     client   server      sum     client   server      sum\n",
    );
    for row in rows {
        let (client, server) = (row.client, row.server);
        let layer = format!("{:?}", row.layer).to_lowercase();
        let wire = format!("{:?}", row.wire).to_lowercase();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {layer:<10} {wire:<5}{:>10.0}{:>9.0}{:>9.0}{:>11.2}{:>9.2}{:>9.2}",
            client.instructions,
            server.instructions,
            client.instructions + server.instructions,
            client.allocations,
            server.allocations,
            client.allocations + server.allocations,
        );
    }
    text
}
