//! Names of namespaces: unique, and saying whose they are, so that leftovers are known as such.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where `ip` keeps named namespaces. Source: ip-netns(8).
pub(super) const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "homa-box";

/// Names of one network's namespaces: `homa-box-PID-START-NUMBER-ROLE`. A process is known by its id and
/// the time of its start, since ids are used again.
#[derive(Debug)]
pub(super) struct BoxName(String);

impl BoxName {
    pub(super) fn unique() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let start = start_time(pid).unwrap_or_default();
        Self(format!("{PREFIX}-{pid}-{start}-{number}"))
    }

    pub(super) fn switch(&self) -> String {
        format!("{}-switch", self.0)
    }

    pub(super) fn host(&self, index: usize) -> String {
        format!("{}-host{index}", self.0)
    }

    /// Removes all namespaces of this network.
    pub(super) fn remove(&self) {
        let prefix = format!("{}-", self.0);
        remove_where(|name| name.starts_with(&prefix));
    }
}

/// Removes the namespaces of processes that are no more.
pub(super) fn remove_leftovers() {
    remove_where(|name| owner(name).is_some_and(|(pid, start)| start_time(pid) != Some(start)));
}

fn remove_where(wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| wanted(name)) else {
            continue;
        };
        // Somebody else may be removing it too.
        let _ = Command::new("ip").args(["netns", "delete", name]).output();
    }
}

/// Process id and start time in the name of a namespace, if it is one of ours.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
    let pid = parts.next()?.parse().ok()?;
    let start = parts.next()?.parse().ok()?;
    Some((pid, start))
}

/// When a process started, in clock ticks since boot; `None` if there is none.
/// Source: proc_pid_stat(5), field 22.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is a name in parentheses, with any characters.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner_and_is_used_once() {
        let (one, other) = (BoxName::unique(), BoxName::unique());
        assert_ne!(one.switch(), other.switch());
        let (pid, start) = owner(&one.host(3)).unwrap();
        assert_eq!(pid, std::process::id());
        assert_eq!(start_time(pid), Some(start));
    }

    #[test]
    fn foreign_names_have_no_owner() {
        for name in [
            "",
            "homa-box",
            "homa-box-",
            "homa-box-1",
            "homa-box-x-1-0-a",
            "other-1-2-3",
        ] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
