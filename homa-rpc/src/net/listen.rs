//! Listening on all addresses that a host name has.

use std::net::SocketAddr;
use std::sync::Arc;

use homa_transport::{BindError, Transport};

use super::uri::Wire;

/// Ports that the system may choose before one is free on all addresses.
const PORTS_MAX: usize = 16;

/// Opens sockets on `addresses`, of which there is at least one, with the same port. Addresses that this host
/// does not have are left out if it has another: `localhost` often has one of IPv6 where there is none.
pub(crate) fn on_all(
    wire: Wire,
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
    wire: Wire,
    addresses: &[SocketAddr],
    open: &impl Fn(SocketAddr) -> Result<Arc<dyn Transport>, BindError>,
) -> Result<Vec<Arc<dyn Transport>>, BindError> {
    let mut opened: Vec<Arc<dyn Transport>> = Vec::new();
    let mut missing = None;
    for &addr in addresses {
        let mut addr = addr;
        if let Some(first) = opened.first() {
            if wire == Wire::Homa {
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

#[cfg(test)]
mod tests {
    use homa_transport::{Config, Socket};

    use super::*;

    fn open(addr: SocketAddr) -> Result<Arc<dyn Transport>, BindError> {
        Ok(Arc::new(Socket::udp(addr, Config::default())?))
    }

    fn addr(ip: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::from((ip, port))
    }

    #[tokio::test]
    async fn all_addresses_of_a_name_get_one_port_but_those_of_other_hosts() {
        // The last is for documentation: no host has it.
        let addresses = [[127, 0, 0, 1], [127, 0, 0, 2], [192, 0, 2, 1]].map(|ip| addr(ip, 0));
        let opened = on_all(Wire::Udp, &addresses, open).unwrap();
        let local: Vec<_> = opened.iter().map(|socket| socket.local_addr()).collect();
        let port = local[0].port();
        assert_eq!(
            local,
            [addr([127, 0, 0, 1], port), addr([127, 0, 0, 2], port)]
        );
        let nowhere = on_all(Wire::Udp, &addresses[2..], open).unwrap_err();
        assert!(nowhere.is_address_missing(), "{nowhere}");
    }

    #[tokio::test]
    async fn a_chosen_port_that_one_address_lacks_is_chosen_anew_and_a_given_one_is_an_error() {
        let taken = open(addr([127, 88, 2, 2], 0)).unwrap();
        let port = taken.local_addr().port();
        let addresses = [addr([127, 88, 2, 1], 0), addr([127, 88, 2, 2], 0)];
        let tries = std::cell::Cell::new(0);
        let opened = on_all(Wire::Udp, &addresses, |addr| {
            tries.set(tries.get() + 1);
            // As if the system had chosen the port that the second address lacks.
            let chosen = if tries.get() == 1 { port } else { addr.port() };
            open(SocketAddr::new(addr.ip(), chosen))
        });
        assert_eq!(tries.get(), 4, "both once more");
        let chosen = opened.unwrap();
        assert_eq!(chosen.len(), 2);
        assert_ne!(chosen[0].local_addr().port(), port);
        let given = addresses.map(|addr| SocketAddr::new(addr.ip(), port));
        let error = on_all(Wire::Udp, &given, open).unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
    }
}
