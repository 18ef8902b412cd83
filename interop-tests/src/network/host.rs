//! A host: a namespace with threads inside.

use std::fs::{self, File};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{io, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::NetworkError;
use super::name::NAMESPACES;

/// A host of a [`super::Network`]: what its runtime runs is inside.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    runtime: Option<Runtime>,
}

impl Host {
    pub(super) fn start(
        namespace: String,
        v4: Ipv4Addr,
        v6: Ipv6Addr,
    ) -> Result<Self, NetworkError> {
        let runtime = runtime_inside(&namespace)
            .map_err(NetworkError::io(format!("threads in {namespace}")))?;
        Ok(Self {
            namespace,
            v4,
            v6,
            runtime: Some(runtime),
        })
    }

    /// Name of its network namespace, as `ip netns` shows it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its IPv4 address.
    #[must_use]
    pub const fn v4(&self) -> IpAddr {
        IpAddr::V4(self.v4)
    }

    /// Its IPv6 address.
    #[must_use]
    pub const fn v6(&self) -> IpAddr {
        IpAddr::V6(self.v6)
    }

    /// Runs a future on a thread of the host: the sockets it opens are the host's.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.runtime().spawn(future)
    }

    /// The runtime of the host. Only what is spawned on it is inside, what `block_on` runs is not.
    ///
    /// # Panics
    /// Never: a host has its runtime until its network is dropped.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        match &self.runtime {
            Some(runtime) => runtime.handle(),
            None => unreachable!("a host has its runtime until its network is dropped"),
        }
    }

    /// A command to run as a process of the host.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program.as_ref());
        command
    }

    pub(super) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test may be dropped within a runtime, where waiting for another one is not allowed.
            runtime.shutdown_background();
        }
    }
}

/// A runtime all of whose threads are in the namespace.
fn runtime_inside(namespace: &str) -> io::Result<Runtime> {
    let namespace = Arc::new(File::open(Path::new(NAMESPACES).join(namespace))?);
    // Try it where it can be told.
    let first = Arc::clone(&namespace);
    join(thread::spawn(move || enter(&first)))?;
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("host")
        .enable_all()
        .on_thread_start(move || {
            if let Err(error) = enter(&namespace) {
                // Going on would mean to test another network than the one meant.
                eprintln!("a thread cannot enter its network namespace: {error}");
                std::process::abort();
            }
        })
        .build()
}

/// Writes a setting of a namespace; `key` is its path below `/proc/sys`, which shows the settings of
/// the namespace of the thread that looks.
pub(super) fn write_sysctl(
    namespace: &str,
    key: &'static str,
    value: &'static str,
) -> Result<(), NetworkError> {
    let file = Path::new(NAMESPACES).join(namespace);
    let write = move || {
        enter(&File::open(file)?)?;
        fs::write(Path::new("/proc/sys").join(key), value)
    };
    match join(thread::spawn(write)) {
        // A kernel without IPv6 has nothing to switch off.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(NetworkError::io(format!("{key} = {value}"))),
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

fn join(thread: thread::JoinHandle<io::Result<()>>) -> io::Result<()> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
