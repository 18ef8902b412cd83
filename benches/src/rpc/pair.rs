//! A server and a client of one stack, as child processes.

use std::process::Command;

use serde::{Deserialize, Serialize};

use super::child::{Order, Role};
use super::scenario::Scenario;
use super::stack::Stack;
use super::usage::Usage;
use crate::process::{Process, this_program};

/// Names of the two hidden commands.
pub(crate) const SERVER: &str = "rpc-server";
pub(crate) const CLIENT: &str = "rpc-client";

/// Environment variable that chooses who implements `homa://`.
const BACKEND: &str = "HOMA_BACKEND";

/// Where and how both ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) client_core: usize,
    pub(crate) server_core: usize,
    pub(crate) polling: bool,
}

/// What one round brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) calls: f64,
    pub(crate) bytes: f64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) client: Usage,
    /// `None` if client and server are one process.
    pub(crate) server: Option<Usage>,
}

/// A stack that is ready to be measured.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) stack: Stack,
    // Dropped first: a client may tell its server to end.
    client: Process,
    server: Option<Process>,
}

impl Pair {
    /// Starts both processes.
    ///
    /// # Errors
    /// Why the stack cannot be used.
    pub(crate) fn start(stack: Stack, place: Place) -> Result<Self, String> {
        let mut role = Role {
            stack,
            core: place.server_core,
            polling: place.polling,
            uris: Vec::new(),
        };
        let mut server = None;
        if !stack.in_process() {
            let (process, uris) = start("server", SERVER, &role)?;
            role.uris = uris;
            server = Some(process);
        }
        role.core = place.client_core;
        let (client, _no_uris) = start("client", CLIENT, &role)?;
        Ok(Self {
            stack,
            client,
            server,
        })
    }

    /// Runs one round of `ms` milliseconds.
    ///
    /// # Errors
    /// What the client says went wrong.
    pub(crate) fn run(&mut self, scenario: Scenario, ms: u64) -> Result<Round, String> {
        let before = self.server_usage()?;
        let scenario = scenario.name.to_owned();
        let mut round: Round = self.client.ask(&Order::Run { scenario, ms })?;
        let after = self.server_usage()?;
        round.server = after.zip(before).map(|(after, before)| after - before);
        Ok(round)
    }

    fn server_usage(&mut self) -> Result<Option<Usage>, String> {
        let server = self.server.as_mut();
        server.map(|server| server.ask(&Order::Usage)).transpose()
    }
}

fn start(name: &'static str, command: &str, role: &Role) -> Result<(Process, Vec<String>), String> {
    let mut program = Command::new(this_program()?);
    program.arg(command).args(role.to_arguments());
    if let Some(backend) = role.stack.backend() {
        program.env(BACKEND, backend);
    }
    Process::start(name, &mut program)
}
