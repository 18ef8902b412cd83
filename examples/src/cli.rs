//! What the example programs have in common: arguments, errors, logs, serving until Ctrl-C.

use std::{env, error::Error, fmt, io, process::ExitCode, str::FromStr};

use homa_rpc::BoundServer;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

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

/// Reads an argument; the error names `what` was expected and the word that came.
///
/// # Errors
///
/// If the word cannot be read as `T`.
pub fn parse<T: FromStr>(word: &str, what: &str) -> Result<T> {
    let wrong = |_| format!("expected {what}, got {word:?}").into();
    word.parse().map_err(wrong)
}

/// Runs `program` with the words after its name. `--help` gives the usage on stdout. Exit code 1 with the
/// error on stderr if the program fails, 2 with the usage on stderr if it was called wrongly.
///
/// Logs go to stderr, warnings and errors if `RUST_LOG` does not say otherwise.
pub async fn run(
    program: impl AsyncFnOnce(&[&str]) -> Result,
    name: &str,
    usage: &str,
) -> ExitCode {
    if let Err(error) = log() {
        eprintln!("{name}: {error}");
        return ExitCode::from(2);
    }
    let arguments = env::args_os().skip(1).map(std::ffi::OsString::into_string);
    let arguments: Vec<String> = match arguments.collect() {
        Ok(arguments) => arguments,
        Err(word) => {
            eprintln!("{name}: expected arguments in UTF-8, got {word:?}");
            return ExitCode::from(2);
        }
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.iter().any(|word| ["--help", "-h"].contains(word)) {
        println!("{usage}");
        return ExitCode::SUCCESS;
    }
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

fn log() -> Result {
    let filter = match env::var("RUST_LOG") {
        Ok(filter) => EnvFilter::try_new(&filter)
            .map_err(|error| format!("RUST_LOG is {filter:?}: {error}"))?,
        Err(_) => EnvFilter::new("warn"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    Ok(())
}

/// Serves until Ctrl-C or SIGTERM, and prints the addresses first, as a port may have been free to choose.
///
/// # Errors
///
/// If a socket fails.
pub async fn serve(server: BoundServer) -> Result {
    let stop = interrupted()?;
    serve_until(server, stop).await
}

/// Yields at Ctrl-C or SIGTERM, which are watched for from the call on.
///
/// # Errors
///
/// If the system does not let it.
pub fn interrupted() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Prints the addresses and serves until `stop` yields, which has to be there already: whoever reads an
/// address may send the signal at once.
///
/// # Errors
///
/// If a socket fails.
pub async fn serve_until(server: BoundServer, stop: impl Future) -> Result {
    for uri in server.local_uris() {
        println!("listening on {uri}");
    }
    server.serve_with_shutdown(stop).await?;
    Ok(())
}
