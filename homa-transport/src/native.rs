//! `homa://`, the wire of the kernel module: who speaks it on this host.
//!
//! The module where it is loaded, raw sockets elsewhere. The environment variable `HOMA_BACKEND` (`raw` or
//! `kernel`) overrides that, and the application overrides both.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::Config;
use crate::error::BindError;
use crate::kernel::KernelSocket;
use crate::link::kernel_module;
use crate::socket::Socket;
use crate::transport::Transport;

/// Names the backend for `homa://`.
const VARIABLE: &str = "HOMA_BACKEND";

/// What can speak `homa://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NativeBackend {
    /// Raw sockets of IP protocol 146, with the protocol in this process. Needs CAP_NET_RAW.
    Raw,
    /// The Homa kernel module.
    Kernel,
}

impl FromStr for NativeBackend {
    type Err = BindError;

    /// Takes `raw` and `kernel`.
    fn from_str(name: &str) -> Result<Self, BindError> {
        match name {
            "raw" => Ok(Self::Raw),
            "kernel" => Ok(Self::Kernel),
            _ => Err(BindError::UnknownBackend {
                value: name.to_owned(),
            }),
        }
    }
}

/// Opens a server's socket for `homa://`; port 0 means the first that is free from 1 to 32767. `backend`
/// `None` leaves the choice to the environment and the host.
///
/// # Errors
/// Why the backend cannot be used, see [`BindError`].
///
/// # Panics
/// If the tokio runtime was built without I/O or timers.
pub fn listen(
    addr: SocketAddr,
    config: Config,
    backend: Option<NativeBackend>,
) -> Result<Arc<dyn Transport>, BindError> {
    match choose(backend)? {
        NativeBackend::Raw => Ok(Arc::new(Socket::raw(addr, config)?)),
        NativeBackend::Kernel => Ok(Arc::new(KernelSocket::bind(addr, config)?)),
    }
}

/// Opens a socket for calls over `homa://`.
///
/// # Errors
/// As [`listen`].
///
/// # Panics
/// As [`listen`].
pub fn client(
    config: Config,
    backend: Option<NativeBackend>,
) -> Result<Arc<dyn Transport>, BindError> {
    match choose(backend)? {
        NativeBackend::Raw => Ok(Arc::new(Socket::raw_client(config)?)),
        NativeBackend::Kernel => Ok(Arc::new(KernelSocket::client(config)?)),
    }
}

fn choose(backend: Option<NativeBackend>) -> Result<NativeBackend, BindError> {
    // Unreadable counts as absent: the raw link says what it meets.
    let module_loaded = || kernel_module::is_loaded().unwrap_or(false);
    preferred(backend, env::var_os(VARIABLE), module_loaded)
}

fn preferred(
    wanted: Option<NativeBackend>,
    variable: Option<OsString>,
    module_loaded: impl FnOnce() -> bool,
) -> Result<NativeBackend, BindError> {
    if let Some(wanted) = wanted {
        return Ok(wanted);
    }
    if let Some(name) = variable.filter(|name| !name.is_empty()) {
        return name.to_string_lossy().parse();
    }
    Ok(if module_loaded() {
        NativeBackend::Kernel
    } else {
        NativeBackend::Raw
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Backend;

    #[test]
    fn a_backend_has_a_name_and_others_are_refused_with_theirs() {
        assert_eq!("raw".parse::<NativeBackend>().unwrap(), NativeBackend::Raw);
        let kernel: NativeBackend = "kernel".parse().unwrap();
        assert_eq!(kernel, NativeBackend::Kernel);
        let error = "Raw".parse::<NativeBackend>().unwrap_err();
        assert!(error.to_string().contains("\"Raw\""), "{error}");
    }

    #[test]
    fn the_application_comes_before_the_environment_and_that_before_the_host() {
        use NativeBackend::{Kernel, Raw};
        let choice = |wanted, variable: Option<&str>, loaded| {
            preferred(wanted, variable.map(OsString::from), || loaded).unwrap()
        };
        assert_eq!(choice(Some(Raw), Some("kernel"), true), Raw);
        assert_eq!(choice(Some(Kernel), Some("nonsense"), false), Kernel);
        assert_eq!(choice(None, Some("raw"), true), Raw);
        assert_eq!(choice(None, Some("kernel"), false), Kernel);
        for unset in [None, Some("")] {
            assert_eq!(choice(None, unset, true), Kernel);
            assert_eq!(choice(None, unset, false), Raw);
        }
        let error = preferred(None, Some("tcp".into()), || true).unwrap_err();
        assert!(
            error.to_string().contains("HOMA_BACKEND is \"tcp\""),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_kernel_backend_is_opened_or_says_that_the_module_is_missing() {
        match client(Config::default(), Some(NativeBackend::Kernel)) {
            Ok(socket) => assert_eq!(socket.stats().backend, Some(Backend::Kernel)),
            Err(error) => {
                assert!(matches!(error, BindError::Kernel(_)), "{error}");
                assert!(error.to_string().contains("Homa module"), "{error}");
            }
        }
    }
}
