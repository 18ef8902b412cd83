//! Feeds fuzz targets with random bytes, on any toolchain and without a corpus.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::Random;

/// Attempts to shorten an input that shows a defect.
const ATTEMPTS_MAX: usize = 20_000;
/// Time spent on that.
const SHORTENING: Duration = Duration::from_secs(60);

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// The function: panics if it finds a defect.
    pub run: fn(&[u8]),
    /// Longest input, in bytes.
    pub bytes_max: usize,
}

enum Task {
    Random { time: Duration, seed: u64 },
    Repeat(Vec<u8>),
}

/// The program of a package that has fuzz targets: reads the arguments of the process, either
/// `TARGET --seconds N [--seed S]` or `TARGET --input HEX`, and does what they say.
///
/// The first form runs one input after the other, all of which follow from the seed, and prints how
/// many. If one shows a defect, it prints that input, shortened if possible; the second form repeats
/// it. Use the `dev` profile: it checks for overflow. The exit code is 0 if nothing was found, 1 if
/// something was, 2 for wrong arguments.
#[must_use]
pub fn command(targets: &[Target]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(targets, &arguments) {
        Ok((target, Task::Random { time, seed })) => run_for(target, time, seed),
        Ok((target, Task::Repeat(input))) => {
            (target.run)(&input);
            println!("{}: nothing found", target.name);
            ExitCode::SUCCESS
        }
        Err(message) => {
            let names: Vec<_> = targets.iter().map(|target| target.name).collect();
            let names = names.join("|");
            eprintln!("{message}\nusage: fuzz {names} --seconds N [--seed S]");
            eprintln!("       fuzz {names} --input HEX");
            ExitCode::from(2)
        }
    }
}

impl Target {
    /// Runs so many inputs that follow from `seed`, as often short as long.
    ///
    /// # Panics
    /// If one shows a defect; the text has the input.
    pub fn run_random(&self, inputs: usize, seed: u64) {
        let mut random = Random::new(seed);
        for _ in 0..inputs {
            let input = input(&mut random, self.bytes_max);
            if catch_unwind(|| (self.run)(&input)).is_err() {
                let (name, input) = (self.name, to_hex(&input));
                panic!("the target {name} has found something, repeat it with: --input {input}");
            }
        }
    }
}

fn parse<'a>(targets: &'a [Target], arguments: &[String]) -> Result<(&'a Target, Task), String> {
    let Some((name, options)) = arguments.split_first() else {
        return Err("no target given".to_owned());
    };
    let target = targets.iter().find(|target| target.name == name);
    let target = target.ok_or_else(|| format!("{name:?} is no target"))?;
    let (mut time, mut seed, mut input) = (None, 0, None);
    for pair in options.chunks(2) {
        match pair {
            [option, value] if option == "--seconds" => {
                time = Some(Duration::from_secs(number(value)?));
            }
            [option, value] if option == "--seed" => seed = number(value)?,
            [option, value] if option == "--input" => input = Some(from_hex(value)?),
            [option, _] => return Err(format!("unknown option {option:?}")),
            _ => return Err(format!("{} needs a value", pair.join(" "))),
        }
    }
    match (time, input) {
        (Some(time), None) => Ok((target, Task::Random { time, seed })),
        (None, Some(input)) => Ok((target, Task::Repeat(input))),
        _ => Err("either --seconds or --input is needed".to_owned()),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is no number from 0 to {}: {error}", u64::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is a matter of real time"
)]
fn run_for(target: &Target, time: Duration, seed: u64) -> ExitCode {
    let mut random = Random::new(seed);
    let (start, mut iterations, mut said) = (Instant::now(), 0_u64, 0);
    while start.elapsed() < time {
        let input = input(&mut random, target.bytes_max);
        if catch_unwind(|| (target.run)(&input)).is_err() {
            println!(
                "{}: finding in iteration {iterations} of seed {seed}",
                target.name
            );
            println!("--input {}", to_hex(&input));
            println!("shortened: --input {}", to_hex(&shorten(target, input)));
            return ExitCode::FAILURE;
        }
        iterations += 1;
        let minutes = start.elapsed().as_secs() / 60;
        if minutes > said {
            said = minutes;
            println!("{}: {iterations} after {minutes} min", target.name);
        }
    }
    println!(
        "{}: {iterations} iterations of seed {seed} in {:.1} s, nothing found",
        target.name,
        start.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// Random bytes: as often short as long.
fn input(random: &mut Random, bytes_max: usize) -> Vec<u8> {
    let len = match bytes_max {
        0..=8 => bytes_max,
        _ => bytes_max >> random.index(5),
    };
    let words = (0..len.div_ceil(8)).flat_map(|_| random.next().to_be_bytes());
    words.take(len).collect()
}

/// The input with everything taken away that the defect does not need. (Which defect it shows is
/// not compared.)
#[expect(
    clippy::disallowed_methods,
    reason = "how long to try is a matter of real time"
)]
fn shorten(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    if target.bytes_max <= 8 {
        return input;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let shows = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err();
    let (start, mut attempts) = (Instant::now(), 0);
    let mut piece = input.len().div_ceil(2);
    loop {
        let before = input.len();
        let mut at = 0;
        while at < input.len() {
            attempts += 1;
            if attempts > ATTEMPTS_MAX || start.elapsed() > SHORTENING {
                return input;
            }
            let mut shorter = input.clone();
            shorter.drain(at..(at + piece).min(input.len()));
            if shows(&shorter) {
                input = shorter;
            } else {
                at += piece;
            }
        }
        if piece == 1 && input.len() == before {
            return input;
        }
        piece = (piece / 2).max(1);
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let error = || format!("{text:?} is no even number of hexadecimal digits");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(error());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| text.get(at..at + 2))
        .map(|digits| digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(error)
}
