//! What the example programs have in common: arguments, errors, serving until Ctrl-C.

use std::{env, error::Error, fmt, process::ExitCode};

use homa_rpc::BoundServer;
use tokio::signal::unix::{SignalKind, signal};

/// The result of a program.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// The words after the program's name are none that it knows.
#[derive(Debug)]
pub struct WrongArguments;

impl fmt::Display for WrongArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrong arguments")
    }
}

impl Error for WrongArguments {}

/// Runs `program` with the words after its name. Exit code 1 with the error on stderr if it fails,
/// 2 with the usage on stderr if it was called wrongly.
pub async fn run(
    program: impl AsyncFnOnce(&[&str]) -> Result,
    name: &str,
    usage: &str,
) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match program(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<WrongArguments>() => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until Ctrl-C, and prints the addresses first, as a port may have been free to choose.
///
/// # Errors
///
/// If a socket fails.
pub async fn serve(server: BoundServer) -> Result {
    // Before the address is printed: whoever reads it may send the signal at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    for uri in server.local_uris() {
        println!("listening on {uri}");
    }
    server.serve_with_shutdown(interrupt.recv()).await?;
    Ok(())
}
