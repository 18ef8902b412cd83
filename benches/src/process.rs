//! Parts of a benchmark as processes of their own: this program again.
//!
//! A child reads one order per line from its standard input and answers each with one line, both JSON. Its
//! first line says whether it is ready. It ends when its input does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A child process that answers line by line.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    /// Closing it ends the child.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `command`, and returns what it says when it is ready. Errors call it `name`.
    ///
    /// # Errors
    /// If it cannot be started, or why it cannot be what it should.
    pub(crate) fn start<T: DeserializeOwned>(
        name: &'static str,
        command: &mut Command,
    ) -> Result<(Self, T), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut process = Self {
            name,
            child,
            input,
            output: BufReader::new(output.ok_or("a child process has no output")?),
        };
        let ready = process.answer()?;
        Ok((process, ready))
    }

    /// Gives an order and waits for the answer.
    ///
    /// # Errors
    /// What the child says went wrong, or that it does not answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, order: &impl Serialize) -> Result<T, String> {
        let order = serde_json::to_string(order).map_err(|error| error.to_string())?;
        if let Some(input) = &mut self.input {
            // If it is gone, its silence says so.
            let _ = writeln!(input, "{order}");
        }
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let (name, mut line) = (self.name, String::new());
        match self.output.read_line(&mut line) {
            Ok(0) => Err(format!("the {name} has ended unexpectedly")),
            Ok(_) => serde_json::from_str::<Result<T, String>>(&line)
                .map_err(|error| format!("the {name} said {line:?}: {error}"))?,
            Err(error) => Err(format!("cannot hear the {name}: {error}")),
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

/// This program with a hidden command.
///
/// # Errors
/// If the system does not tell where it is.
pub(crate) fn this_program() -> Result<std::path::PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

/// In a child: says that it is ready, or not, or what came of an order.
pub(crate) fn answer<T: Serialize>(result: Result<T, String>) {
    let line = serde_json::to_string(&result)
        .unwrap_or_else(|error| format!("an answer that is no JSON: {error}"));
    let mut out = std::io::stdout().lock();
    // A parent that is gone also ends the input.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// In a child: carries out the orders until there are no more.
pub(crate) fn orders<O: DeserializeOwned, T: Serialize>(
    mut run: impl FnMut(O) -> Result<T, String>,
) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let order = serde_json::from_str(&line);
        answer(
            order
                .map_err(|error| format!("expected an order, got {line:?}: {error}"))
                .and_then(&mut run),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Result<(Process, u32), String> {
        Process::start("shell", Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_child_is_asked_and_its_errors_are_those_of_the_caller() {
        let script = "echo '{\"Ok\":7}'; read order; echo \"{\\\"Ok\\\":[$order]}\"; \
                      read order; echo '{\"Err\":\"no more\"}'";
        let (mut shell, ready) = start(script).unwrap();
        assert_eq!(ready, 7);
        assert_eq!(shell.ask(&"up"), Ok(["up".to_owned()]));
        assert_eq!(shell.ask::<()>(&1), Err("no more".to_owned()));
        let ended = shell.ask::<()>(&1).unwrap_err();
        assert!(ended.contains("the shell has ended"), "{ended}");
    }

    #[test]
    fn a_child_that_says_something_else_is_quoted() {
        let error = start("echo hello").unwrap_err();
        assert!(error.contains("the shell said \"hello"), "{error}");
        let error = Process::start::<u32>("ghost", &mut Command::new("/no/such/program"));
        assert!(error.unwrap_err().contains("cannot start /no/such/program"));
    }
}
