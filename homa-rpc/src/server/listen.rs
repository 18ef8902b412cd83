//! Listening on all addresses that a host name has.

use std::net::SocketAddr;
use std::sync::Arc;

use homa_transport::{BindError, Transport};

use crate::uri::NetWire;

/// Ports that the system may choose before one is free on all addresses.
const PORTS_MAX: usize = 16;

/// Opens sockets on `addresses`, of which there is at least one, with the same port. Addresses that this host
/// does not have are left out if it has another: `localhost` often has one of IPv6 where there is none.
pub(super) fn on_all(
    wire: NetWire,
    addresses: &[SocketAddr],
    open: impl Fn(SocketAddr) -> Result<Arc<dyn Transport>, BindError>,
) -> Result<Vec<Arc<dyn Transport>>, BindError> {
    let any_port = addresses.iter().all(|addr| addr.port() == 0);
    let mut ports_left = if any_port { PORTS_MAX } else { 1 };
    loop {
        ports_left -= 1;
        match on_one_port(wire, addresses, &open) {
            Err(BindError::AddressInUse { addr }) if ports_left > 0 => {
                tracing::debug!(%addr, "a port is free on some of the addresses only");
            }
            result => return result,
        }
    }
}

fn on_one_port(
    wire: NetWire,
    addresses: &[SocketAddr],
    open: &impl Fn(SocketAddr) -> Result<Arc<dyn Transport>, BindError>,
) -> Result<Vec<Arc<dyn Transport>>, BindError> {
    let mut opened: Vec<Arc<dyn Transport>> = Vec::new();
    let mut missing = None;
    for &addr in addresses {
        let mut addr = addr;
        if let Some(first) = opened.first() {
            if wire == NetWire::Native {
                // There a port has one socket, whatever its address.
                tracing::warn!(
                    listening = %first.local_addr(), not_listening = %addr.ip(),
                    "homa:// listens on one address of a name: use [::] for all of this host"
                );
                continue;
            }
            addr.set_port(first.local_addr().port());
        }
        match open(addr) {
            Ok(socket) => opened.push(socket),
            Err(error) if error.is_address_missing() => {
                tracing::debug!(%error, "an address of the name is left out");
                missing = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}
