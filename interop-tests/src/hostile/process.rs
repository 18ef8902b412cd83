//! Parts of a run as processes of their own: this program again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::BoxError;
use super::server::Counters;

/// What Rust programs print when they panic.
const PANIC: &str = "panicked at";
/// Kinds of sockets that drop packets, as files of `/proc/PID/net`.
const SOCKET_TABLES: [&str; 4] = ["udp", "udp6", "raw", "raw6"];
/// Column of a socket's inode in these. Source: proc_net_udp(5), net/ipv4/udp.c, `udp4_format_sock`.
const INODE_COLUMN: usize = 9;

/// A child, killed when it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    panicked: Arc<AtomicBool>,
    errors: JoinHandle<()>,
}

impl Part {
    /// Starts `command` with these arguments.
    pub(super) fn start(
        command: std::process::Command,
        arguments: &[&str],
    ) -> Result<Self, BoxError> {
        let mut child = Command::from(command)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("a child has an output")?;
        let errors = child.stderr.take().ok_or("a child has an error output")?;
        let panicked: Arc<AtomicBool> = Arc::default();
        Ok(Self {
            input: child.stdin.take(),
            output: BufReader::new(output).lines(),
            errors: tokio::spawn(pass_on(errors, Arc::clone(&panicked))),
            panicked,
            child,
        })
    }

    /// The next line it prints.
    pub(super) async fn line(&mut self) -> Result<String, BoxError> {
        match self.output.next_line().await? {
            Some(line) => Ok(line),
            None => Err(format!("it ended early: {}", self.child.wait().await?).into()),
        }
    }

    /// The next line it prints, read as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, BoxError> {
        Ok(serde_json::from_str(&self.line().await?)?)
    }

    /// The counters of a server.
    pub(super) async fn counters(&mut self) -> Result<Counters, BoxError> {
        let input = self.input.as_mut().ok_or("the input is closed")?;
        input.write_all(b"counters\n").await?;
        self.json().await
    }

    /// Ends its input and waits for its end; false if it did not end well.
    pub(super) async fn stop(&mut self) -> Result<bool, BoxError> {
        self.input = None;
        let status = self.child.wait().await?;
        // All that it printed is read then.
        (&mut self.errors).await?;
        Ok(status.success())
    }

    /// Whether anything in it panicked, so far.
    pub(super) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::SeqCst)
    }

    fn proc(&self) -> Result<PathBuf, BoxError> {
        let id = self.child.id().ok_or("the process has ended")?;
        Ok(Path::new("/proc").join(id.to_string()))
    }

    /// Its memory that is resident, in kB.
    pub(super) fn resident_kb(&self) -> Result<u64, BoxError> {
        let status = fs::read_to_string(self.proc()?.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        Ok(number.ok_or("the system does not tell VmRSS")?.parse()?)
    }

    /// Packets that the kernel dropped because a receive buffer of the process was full.
    pub(super) fn dropped(&self) -> Result<u64, BoxError> {
        let proc = self.proc()?;
        let links = fs::read_dir(proc.join("fd"))?.flatten();
        let sockets: Vec<String> = links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .filter_map(|link| inode(link.to_str()?).map(str::to_owned))
            .collect();
        // A kernel without IPv6 has not all of these.
        let tables = SOCKET_TABLES.map(|table| fs::read_to_string(proc.join("net").join(table)));
        Ok(tables
            .iter()
            .flatten()
            .map(|table| drops(table, &sockets))
            .sum())
    }
}

/// The number of a socket, from what its descriptor links to.
fn inode(link: &str) -> Option<&str> {
    link.strip_prefix("socket:[")?.strip_suffix(']')
}

/// The last column of the lines about these sockets, added up.
fn drops(table: &str, sockets: &[String]) -> u64 {
    let of_line = |line: &str| {
        let inode = line.split_ascii_whitespace().nth(INODE_COLUMN)?;
        let ours = sockets.iter().any(|socket| socket == inode);
        let last = line.split_ascii_whitespace().next_back();
        last.filter(|_| ours)?.parse::<u64>().ok()
    };
    table.lines().filter_map(of_line).sum()
}

/// Shows what a child complains about, and remembers panics.
async fn pass_on(errors: ChildStderr, panicked: Arc<AtomicBool>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains(PANIC) {
            panicked.store(true, Ordering::SeqCst);
        }
        eprintln!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_is_heard_and_its_panics_are_noticed() {
        let shell = std::process::Command::new("sh");
        let script =
            "echo 7; read line; echo \"{\\\"$line\\\": 1}\"; echo \"thread 'x' panicked at y\" >&2";
        let mut part = Part::start(shell, &["-c", script]).unwrap();
        assert_eq!(part.json::<u32>().await.unwrap(), 7);
        assert!(part.resident_kb().unwrap() > 0);
        assert_eq!(part.dropped().unwrap(), 0);
        assert_eq!(part.counters().await.unwrap()["counters"], 1);
        assert!(part.stop().await.unwrap());
        assert!(part.has_panicked());
        let error = part.line().await.unwrap_err().to_string();
        assert!(error.contains("ended early"), "{error}");
    }

    #[test]
    fn drops_are_those_of_the_sockets_of_the_process() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  12: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5555 2 0000000000000000 17
  13: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 6666 2 0000000000000000 900
";
        assert_eq!(inode("socket:[5555]"), Some("5555"));
        assert_eq!(inode("/dev/null"), None);
        assert_eq!(drops(table, &["5555".to_owned()]), 17);
        assert_eq!(drops(table, &[]), 0);
    }
}
