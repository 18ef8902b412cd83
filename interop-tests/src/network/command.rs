//! Runs `ip` and `tc`, and says why not.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// This machine cannot have one: no fault of what is tested.
    #[error("no network in a box here: {0}")]
    Unavailable(String),
    /// A number of hosts that there cannot be.
    #[error("a network in a box has 2 to {max} hosts, not {got}")]
    Hosts {
        /// Hosts asked for.
        got: usize,
        /// Hosts there can be.
        max: usize,
    },
    /// A command failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command and what it was given to do.
        command: String,
        /// What it said.
        message: String,
    },
    /// The system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl NetworkError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// What `ip` and `tc` say when the kernel lacks what was asked for, or does not let us.
/// Source: net/sched/sch_api.c, net/core/rtnetlink.c, iproute2.
const LACKING: [&str; 6] = [
    "Specified qdisc kind is unknown",
    "Unknown device type",
    "Failed to load TC action module",
    "TC classifier not found",
    "Operation not permitted",
    "Operation not supported",
];

/// Whether it makes sense to try.
pub(super) fn check_available() -> Result<(), NetworkError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NetworkError::Unavailable("it needs root".to_owned()));
    }
    for program in ["ip", "tc"] {
        if let Err(error) = Command::new(program).arg("-V").output() {
            let reason = format!("cannot run `{program}` (of iproute2): {error}");
            return Err(NetworkError::Unavailable(reason));
        }
    }
    Ok(())
}

/// Has `ip` do all of `commands` within a namespace.
pub(super) fn ip(namespace: Option<&str>, commands: &[String]) -> Result<(), NetworkError> {
    batch("ip", namespace, commands)
}

/// Has `tc` do all of `commands` within a namespace.
pub(super) fn tc_batch(namespace: &str, commands: &[String]) -> Result<(), NetworkError> {
    batch("tc", Some(namespace), commands)
}

/// What `tc` prints.
pub(super) fn tc(namespace: &str, arguments: &[&str]) -> Result<String, NetworkError> {
    let mut command = Command::new("tc");
    command.args(["-n", namespace]).args(arguments);
    let output = command.output().map_err(NetworkError::io("tc"))?;
    check("tc", &arguments.join(" "), &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn batch(program: &str, namespace: Option<&str>, commands: &[String]) -> Result<(), NetworkError> {
    let mut command = Command::new(program);
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let lines = commands.join("\n");
    let output =
        run_with_input(command.args(["-batch", "-"]), &lines).map_err(NetworkError::io(program))?;
    check(program, &lines, &output)
}

fn run_with_input(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have given up before it has read everything; its status tells.
        let _ = stdin.write_all(input.as_bytes());
        let _ = stdin.write_all(b"\n");
    }
    child.wait_with_output()
}

fn check(program: &str, task: &str, output: &Output) -> Result<(), NetworkError> {
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if LACKING.iter().any(|text| message.contains(text)) {
        let reason = format!("`{program}`: {message}");
        return Err(NetworkError::Unavailable(reason));
    }
    Err(NetworkError::Command {
        command: format!("{program}: {task}"),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        if check_available().is_err() {
            return;
        }
        let error = ip(None, &["link frobnicate".to_owned()]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, NetworkError::Command { .. }), "{text}");
        assert!(text.contains("frobnicate"), "{text}");
    }
}
