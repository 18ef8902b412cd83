//! Runs a side under callgrind and reads what it counted.
//!
//! The format: <https://valgrind.org/docs/manual/cl-format.html>. Only the lines are read that say which
//! function calls which how often, and the totals.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::side::Side;
use crate::process::{Process, this_program};

const VALGRIND: &str = "valgrind";
/// Functions of mimalloc that allocate, as Rust calls them. Resizing counts, as it does in the allocator's
/// own statistics.
const ALLOCATORS: [&str; 7] = [
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_calloc",
    "mi_realloc",
    "mi_realloc_aligned",
];
/// Says why this machine cannot count.
///
/// # Errors
/// If valgrind is not installed or does not run.
pub(crate) fn check() -> Result<(), String> {
    let tried = Command::new(VALGRIND)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "cannot count instructions here: valgrind does not run: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!(
            "cannot count instructions here: the program `valgrind` is needed: {error}"
        )),
    }
}

/// What a thread or a process did between two marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
}

/// The costs of the threads of a process that made marks, by callgrind's numbers of them.
#[derive(Debug, Default)]
pub(crate) struct Costs(HashMap<u32, Cost>);

impl Costs {
    /// That of one thread.
    ///
    /// # Errors
    /// If it made no marks.
    pub(crate) fn of(&self, thread: u32) -> Result<Cost, String> {
        let cost = self.0.get(&thread).copied();
        cost.ok_or_else(|| format!("callgrind has counted nothing in thread {thread}"))
    }
}

/// A side whose instructions are counted.
#[derive(Debug)]
pub(crate) struct Counted {
    // Dropped before the directory that it writes to.
    pub(crate) process: Process,
    directory: Directory,
}

impl Counted {
    /// Starts a side; returns it with its URI.
    ///
    /// # Errors
    /// Why it cannot run.
    pub(crate) fn start(name: &'static str, side: &Side) -> Result<(Self, String), String> {
        let directory = Directory::new(name)?;
        let output = directory.0.join("out");
        let mut command = Command::new(VALGRIND);
        command
            .args(["--tool=callgrind", "--quiet", "--separate-threads=yes"])
            .arg(format!("--dump-before=*{}*", super::side::MARK))
            .arg(format!("--callgrind-out-file={}", output.display()))
            .arg(this_program()?)
            .args(side.to_arguments()?);
        let (process, uri) = Process::start(name, &mut command)?;
        Ok((Self { process, directory }, uri))
    }

    /// Ends it, and returns what was counted between the two marks.
    ///
    /// # Errors
    /// If callgrind has not written that.
    pub(crate) fn end(self) -> Result<Costs, String> {
        drop(self.process);
        let mut parts: HashMap<u32, Vec<(u32, PathBuf)>> = HashMap::new();
        for path in self.directory.files()? {
            // What a thread had counted at a mark is in `out.PART-THREAD`.
            let end = path.extension().and_then(|end| end.to_str());
            let numbers = end.and_then(|end| end.split_once('-'));
            let numbers = numbers.map(|(part, thread)| (part.parse(), thread.parse()));
            if let Some((Ok(part), Ok(thread))) = numbers {
                parts.entry(thread).or_default().push((part, path));
            }
        }
        let mut costs = Costs::default();
        for (thread, mut parts) in parts {
            parts.sort();
            // The first is what was before the first mark.
            let Some((_, path)) = parts.get(1) else {
                continue;
            };
            let text = fs::read_to_string(path).map_err(|error| unread(path, &error))?;
            let cost = parse(&text).ok_or_else(|| format!("{} has no totals", path.display()))?;
            costs.0.insert(thread, cost);
        }
        Ok(costs)
    }
}

fn unread(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// The cost that a file tells.
fn parse(text: &str) -> Option<Cost> {
    let mut cost = Cost::default();
    let mut totals = None;
    // A name is written out once, with a number in front that stands for it afterwards.
    let mut names = HashMap::new();
    let (mut caller_allocates, mut callee_allocates) = (false, false);
    for line in text.lines() {
        let Some((key, value)) = line.split_once(['=', ':']) else {
            continue;
        };
        match key {
            "totals" => totals = value.trim().parse().ok(),
            "fn" => caller_allocates = is_allocators(name(&mut names, value)),
            "cfn" => callee_allocates = ALLOCATORS.contains(&name(&mut names, value)),
            "calls" if callee_allocates && !caller_allocates => {
                let count: u64 = value.split(' ').next()?.parse().ok()?;
                cost.allocations += count;
            }
            _ => {}
        }
    }
    cost.instructions = totals?;
    Some(cost)
}

fn name<'a>(names: &mut HashMap<&'a str, &'a str>, value: &'a str) -> &'a str {
    match value.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(value).copied().unwrap_or_default(),
    }
}

/// Whether it is one of the allocator's own functions, which call one another.
fn is_allocators(function: &str) -> bool {
    function.starts_with("mi_") || function.starts_with("_mi_")
}

/// A directory of our own, removed when it is dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Result<Self, String> {
        static MADE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("homa-bench-{id}-{number}-{name}"));
        fs::create_dir(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn files(&self) -> Result<Vec<PathBuf>, String> {
        let entries = fs::read_dir(&self.0).map_err(|error| unread(&self.0, &error))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing else depends on its being gone.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_calls_into_the_allocator_from_outside() {
        let text = "\
# callgrind format
thread: 2
events: Ir
fn=(1) main
0 5
cfn=(2) mi_malloc_aligned
calls=3 0
0 90
cfn=(3) other
calls=7 0
0 7

fn=(2)
0 10
cfn=(4) mi_malloc
calls=3 0
0 30

fn=(3)
0 1
cfn=(4)
calls=2 0
0 20

totals: 143
";
        let expected = Cost {
            instructions: 143,
            allocations: 5,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("thread: 1\n"), None);
    }
}
