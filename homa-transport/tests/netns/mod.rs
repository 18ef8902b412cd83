//! Hosts for tests: network namespaces of threads. They have no names, so they are gone with the threads
//! and sockets in them, whatever becomes of the test.

pub(crate) mod sys;

use std::future::Future;
use std::process::Command;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Why tests with raw sockets and namespaces cannot be run here, if they cannot.
pub(crate) fn obstacle() -> Option<String> {
    let own_network = std::thread::spawn(|| {
        sys::enter_new_network()?;
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(146))).map(drop)
    });
    match own_network.join() {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!(
            "no raw sockets in a network namespace of its own: {error} (needs root)"
        )),
        Err(_) => Some("cannot start a thread".to_owned()),
    }
}

/// Ends a test, saying why, where it cannot be run.
#[macro_export]
macro_rules! needs_root {
    () => {
        if let Some(obstacle) = netns::obstacle() {
            eprintln!("SKIPPED {}: {obstacle}", std::module_path!());
            return;
        }
    };
}

/// A network namespace, with a runtime whose threads are in it.
#[derive(Debug)]
pub(crate) struct Host {
    runtime: Option<Runtime>,
}

impl Host {
    /// A host that has its loopback interface only.
    pub(crate) fn new() -> Self {
        let runtime = std::thread::spawn(|| {
            sys::enter_new_network().unwrap();
            // Threads are in the namespace of the one that starts them.
            Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
        });
        let host = Self {
            runtime: Some(runtime.join().unwrap()),
        };
        // Else link-local addresses cannot be used for a second or two.
        for interfaces in ["all", "default"] {
            host.set(&format!("ipv6/conf/{interfaces}/accept_dad"), "0");
        }
        host.ip("link set lo up");
        host
    }

    /// Two hosts joined by a link of this MTU: 10.0.0.1 and fd00::1, 10.0.0.2 and fd00::2.
    pub(crate) fn pair(mtu: u32) -> [Self; 2] {
        let hosts = [Self::new(), Self::new()];
        let other = hosts[1].block_on(async { thread_id() });
        hosts[0].ip(&format!(
            "link add eth type veth peer name eth netns {other}"
        ));
        for (host, number) in hosts.iter().zip(1..) {
            host.ip(&format!(
                "link set eth address 02:00:00:00:00:0{number} mtu {mtu} up"
            ));
            host.ip(&format!("addr add 10.0.0.{number}/24 dev eth"));
            host.ip(&format!("addr add fd00::{number}/64 dev eth nodad"));
        }
        // A search for the other end's link address that comes too early is repeated only after a second.
        for (host, other) in hosts.iter().zip([2, 1]) {
            host.wait_for("eth");
            for ip in ["10.0.0.", "fd00::"] {
                let link_address = format!("02:00:00:00:00:0{other}");
                host.ip(&format!(
                    "neigh add {ip}{other} lladdr {link_address} dev eth"
                ));
            }
        }
        hosts
    }

    /// Waits until an interface carries packets; before that they are lost.
    pub(crate) fn wait_for(&self, interface: &str) {
        self.wait_until(&format!("-o link show {interface}"), |shown| {
            shown.contains("state UP")
        });
    }

    /// Waits until what the `ip` program shows is as wanted.
    pub(crate) fn wait_until(&self, show: &str, wanted: impl Fn(&str) -> bool) {
        while !wanted(&self.ip(show)) {
            std::thread::yield_now();
        }
    }

    /// Runs the `ip` program on this host.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.block_on(async move {
            let output = Command::new("ip").args(&arguments).output().unwrap();
            assert!(output.status.success(), "ip {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Runs a future on this host.
    pub(crate) fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Not `Runtime::block_on`, which would run it on the thread of the test.
        let task = self.spawn(future);
        match self.runtime.as_ref().unwrap().block_on(task) {
            Ok(output) => output,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Makes this host a router.
    pub(crate) fn forward_packets(&self) {
        self.set("ipv4/ip_forward", "1");
        self.set("ipv6/conf/all/forwarding", "1");
    }

    /// Sets a `net` parameter of this host.
    fn set(&self, parameter: &str, value: &'static str) {
        // Shows the namespace of the thread that looks.
        let path = format!("/proc/sys/net/{parameter}");
        self.block_on(async move { std::fs::write(path, value).unwrap() });
    }

    /// A socket that sees all packets on this host's links from now on, in both directions, from the IP
    /// header on.
    pub(crate) fn tap(&self) -> Socket {
        self.block_on(async move {
            // Source: linux/if_ether.h, ETH_P_ALL.
            let everything = i32::from(3_u16.to_be());
            let everything = Some(Protocol::from(everything));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, everything).unwrap();
            socket.set_recv_buffer_size(8 << 20).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
    }

    /// Starts a future on this host.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.as_ref().unwrap().spawn(future)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The number of the calling thread, by which its namespace is found.
pub(crate) fn thread_id() -> String {
    let path = std::fs::read_link("/proc/thread-self").unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
