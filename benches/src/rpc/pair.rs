//! A server and a client of one stack, as child processes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::child::Role;
use super::scenario::Scenario;
use super::stack::Stack;
use super::usage::{Usage, numbers};

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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
            let mut process = Process::start(SERVER, &role)?;
            let ready = process.answer()?;
            role.uris = ready.split(' ').map(str::to_owned).collect();
            server = Some(process);
        }
        role.core = place.client_core;
        let mut client = Process::start(CLIENT, &role)?;
        client.answer()?;
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
        let result = self.client.ask(&format!("run {} {ms}", scenario.name))?;
        let after = self.server_usage()?;
        let all: [f64; 10] = numbers(&result)?;
        let [calls, bytes, seconds, p50_us, p99_us, usage @ ..] = all;
        Ok(Round {
            calls,
            bytes,
            seconds,
            p50_us,
            p99_us,
            client: Usage::of(usage),
            server: after.zip(before).map(|(after, before)| after - before),
        })
    }

    fn server_usage(&mut self) -> Result<Option<Usage>, String> {
        match &mut self.server {
            Some(server) => server.ask("usage")?.parse().map(Some),
            None => Ok(None),
        }
    }
}

/// A child process that answers line by line.
#[derive(Debug)]
struct Process {
    name: &'static str,
    child: Child,
    /// Closing it ends the child.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &'static str, role: &Role) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("cannot start another process: {error}");
        let mut program = Command::new(std::env::current_exe().map_err(text)?);
        program
            .arg(command)
            .args(role.to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(backend) = role.stack.backend() {
            program.env(BACKEND, backend);
        }
        let mut child = program.spawn().map_err(text)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            name: if command == SERVER {
                "server"
            } else {
                "client"
            },
            child,
            input,
            output: BufReader::new(output.ok_or("a child process has no output")?),
        })
    }

    fn ask(&mut self, command: &str) -> Result<String, String> {
        if let Some(input) = &mut self.input {
            // If it is gone, its silence says so.
            let _ = writeln!(input, "{command}");
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        match line.trim_end().split_once(' ') {
            Some(("ok", text)) => Ok(text.to_owned()),
            Some(("error", text)) => Err(text.to_owned()),
            None if line.trim_end() == "ok" => Ok(String::new()),
            _ => Err(match read {
                Ok(0) => format!("the {} has ended unexpectedly", self.name),
                Ok(_) => format!("the {} said {line:?}", self.name),
                Err(error) => format!("cannot hear the {}: {error}", self.name),
            }),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // It ends by itself; waiting keeps it from staying as a zombie.
        let _ = self.child.wait();
    }
}
