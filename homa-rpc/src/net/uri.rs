//! Where to call and where to listen: `homa://host:port`, `homa+udp://host:port`, `homa+mem://name`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

/// Longest in-process name, in bytes.
const NAME_MAX: usize = 200;

const FORMS: &str = "homa://host:port, homa+udp://host:port or homa+mem://name";

/// Why a URI was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// No `scheme://`.
    #[error("URI {0:?} has no scheme: expected {FORMS}")]
    NoScheme(String),
    /// A scheme that is not known.
    #[error("URI {uri:?} has the unknown scheme {scheme:?}: expected {FORMS}")]
    UnknownScheme {
        /// The whole URI.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
    /// Something that these URIs do not have.
    #[error("URI {uri:?} has {part}, expected is {FORMS} and nothing more")]
    Unexpected {
        /// The whole URI.
        uri: String,
        /// `a path`, `a query`, `a fragment` or `user information`.
        part: &'static str,
    },
    /// No host, or one that cannot be a host.
    #[error(
        "URI {0:?} has no valid host: expected a name, an IPv4 address or an IPv6 address in brackets"
    )]
    Host(String),
    /// A link-local address, which each interface has, without the interface.
    #[error(
        "URI {0:?} has a link-local address without a zone, which says behind which interface it is: expected for instance [fe80::1%25eth0] or [fe80::1%2]"
    )]
    NoZone(String),
    /// A zone that is none.
    #[error(
        "URI {uri:?} has the zone {zone:?}: expected the name or number of an interface of this host, behind a link-local IPv6 address"
    )]
    Zone {
        /// The whole URI.
        uri: String,
        /// Its zone.
        zone: String,
    },
    /// An address of many hosts.
    #[error(
        "URI {0:?} has the address of a group or of all hosts: expected that of one host, or 0.0.0.0 or [::] to listen on all of one's own"
    )]
    NotOneHost(String),
    /// No port.
    #[error("URI {0:?} has no port: expected {FORMS}")]
    NoPort(String),
    /// A port that is not a number from 0 to 65535.
    #[error("URI {uri:?} has the port {port:?}: allowed are 1 to 65535 (0 to listen on any)")]
    Port {
        /// The whole URI.
        uri: String,
        /// Its port.
        port: String,
    },
    /// Port 0, which can be listened on but not called.
    #[error("URI {0:?} has port 0, which cannot be called: allowed are 1 to 65535")]
    PortZero(String),
    /// Not an in-process name.
    #[error(
        "URI {0:?} has no valid in-process name: allowed are 1 to {NAME_MAX} letters, digits, '-', '_' and '.'"
    )]
    Name(String),
}

/// A parsed URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Net {
        wire: NetWire,
        host: Host,
        port: u16,
    },
    Mem {
        name: String,
    },
}

/// What goes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetWire {
    /// IP protocol 146, as the kernel module.
    Native,
    /// The same packets in UDP datagrams.
    Udp,
}

impl NetWire {
    /// The URI of a socket of this wire.
    pub(crate) fn uri(self, addr: impl fmt::Display) -> String {
        format!("{}://{addr}", self.scheme())
    }

    const fn scheme(self) -> &'static str {
        match self {
            Self::Native => "homa",
            Self::Udp => "homa+udp",
        }
    }
}

/// The host of a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(Address),
    Name(String),
}

/// An IP address, with the interface behind which a link-local one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    ip: IpAddr,
    scope_id: u32,
}

impl Address {
    pub(crate) fn at(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope_id).into(),
        }
    }
}

impl Target {
    /// Parses where to call.
    pub(crate) fn to_call(uri: &str) -> Result<Self, UriError> {
        match Self::to_listen(uri)? {
            Self::Net { port: 0, .. } => Err(UriError::PortZero(uri.to_owned())),
            target => Ok(target),
        }
    }

    /// Whether this is `homa://`.
    pub(crate) const fn is_native(&self) -> bool {
        matches!(
            self,
            Self::Net {
                wire: NetWire::Native,
                ..
            }
        )
    }

    /// Parses where to listen.
    pub(crate) fn to_listen(uri: &str) -> Result<Self, UriError> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Err(UriError::NoScheme(uri.to_owned()));
        };
        // Schemes are the same in either case. Source: RFC 3986, section 3.1.
        match scheme.to_ascii_lowercase().as_str() {
            "homa" => parse_net(uri, rest, NetWire::Native),
            "homa+udp" => parse_net(uri, rest, NetWire::Udp),
            "homa+mem" => parse_mem(uri, rest),
            _ => Err(UriError::UnknownScheme {
                uri: uri.to_owned(),
                scheme: scheme.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net {
                wire,
                host: Host::Address(address),
                port,
            } => f.write_str(&wire.uri(address.at(*port))),
            Self::Net {
                wire,
                host: Host::Name(name),
                port,
            } => write!(f, "{}://{name}:{port}", wire.scheme()),
            Self::Mem { name } => write!(f, "homa+mem://{name}"),
        }
    }
}

/// Refuses everything behind the authority; a lone `/` is allowed.
fn only_authority<'a>(uri: &str, rest: &'a str) -> Result<&'a str, UriError> {
    let unexpected = |part| UriError::Unexpected {
        uri: uri.to_owned(),
        part,
    };
    if rest.contains('#') {
        return Err(unexpected("a fragment"));
    }
    if rest.contains('?') {
        return Err(unexpected("a query"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('/') {
        return Err(unexpected("a path"));
    }
    if authority.contains('@') {
        return Err(unexpected("user information"));
    }
    Ok(authority)
}

fn parse_net(uri: &str, rest: &str, wire: NetWire) -> Result<Target, UriError> {
    let authority = only_authority(uri, rest)?;
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return Err(UriError::Host(uri.to_owned()));
        };
        let address = parse_ipv6(uri, address)?;
        (Host::Address(address), port.strip_prefix(':'))
    } else {
        match authority.rsplit_once(':') {
            Some((host, port)) => (parse_host(uri, host)?, Some(port)),
            None => (parse_host(uri, authority)?, None),
        }
    };
    if let Host::Address(Address { ip, .. }) = host
        && (ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
    {
        return Err(UriError::NotOneHost(uri.to_owned()));
    }
    let port = match port {
        None | Some("") => return Err(UriError::NoPort(uri.to_owned())),
        Some(port) => port,
    };
    let bad_port = || UriError::Port {
        uri: uri.to_owned(),
        port: port.to_owned(),
    };
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad_port());
    }
    let port = port.parse().map_err(|_| bad_port())?;
    Ok(Target::Net { wire, host, port })
}

fn parse_host(uri: &str, host: &str) -> Result<Host, UriError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        // An IPv6 address needs brackets, else its end could be a port.
        return match address {
            IpAddr::V4(_) => Ok(Host::Address(Address {
                ip: address,
                scope_id: 0,
            })),
            IpAddr::V6(_) => Err(UriError::Host(uri.to_owned())),
        };
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    // Longest DNS name. Source: RFC 1035, section 2.3.4.
    if host.is_empty() || host.len() > 253 || !host.bytes().all(good) {
        return Err(UriError::Host(uri.to_owned()));
    }
    Ok(Host::Name(host.to_owned()))
}

/// What stands between the brackets, with or without a zone.
fn parse_ipv6(uri: &str, text: &str) -> Result<Address, UriError> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    let ip: Ipv6Addr = ip.parse().map_err(|_| UriError::Host(uri.to_owned()))?;
    let scope_id = match zone {
        None if ip.is_unicast_link_local() => return Err(UriError::NoZone(uri.to_owned())),
        None => 0,
        Some(zone) => {
            // `%` is `%25` in a URI, and often written as it is. Source: RFC 6874, section 2.
            let name = zone.strip_prefix("25").filter(|name| !name.is_empty());
            let name = name.unwrap_or(zone);
            scope_of(ip, name).ok_or_else(|| UriError::Zone {
                uri: uri.to_owned(),
                zone: name.to_owned(),
            })?
        }
    };
    let ip = ip.into();
    Ok(Address { ip, scope_id })
}

/// The number of an interface by its name, or number, for a link-local address.
fn scope_of(ip: Ipv6Addr, zone: &str) -> Option<u32> {
    if !ip.is_unicast_link_local() {
        return None;
    }
    if zone.bytes().all(|b| b.is_ascii_digit()) {
        return zone.parse().ok().filter(|number| *number > 0);
    }
    // Longest name of an interface, and what it cannot contain. Source: net/core/dev.c, `dev_valid_name`.
    let good = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    if zone.len() > 15 || !zone.bytes().all(good) {
        return None;
    }
    // The system knows by which number an interface goes; nothing is asked of the network for this.
    let mut found = (format!("{ip}%{zone}"), 0_u16).to_socket_addrs().ok()?;
    match found.next()? {
        SocketAddr::V6(found) => Some(found.scope_id()).filter(|number| *number > 0),
        SocketAddr::V4(_) => None,
    }
}

fn parse_mem(uri: &str, rest: &str) -> Result<Target, UriError> {
    let name = only_authority(uri, rest)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(good) {
        return Err(UriError::Name(uri.to_owned()));
    }
    Ok(Target::Mem {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_uris_are_parsed_and_shown_again() {
        for uri in [
            "homa+udp://127.0.0.1:4000",
            "homa+udp://[::1]:65535",
            "homa+udp://some-host.example:1",
            "homa://127.0.0.1:4000",
            "homa://some-host:99",
            "homa+mem://name_1.x",
        ] {
            assert_eq!(Target::to_call(uri).unwrap().to_string(), uri);
        }
        let slash = Target::to_call("HOMA+UDP://127.0.0.1:4000/").unwrap();
        assert_eq!(slash.to_string(), "homa+udp://127.0.0.1:4000");
        assert!(Target::to_listen("homa+udp://0.0.0.0:0").is_ok());
    }

    #[test]
    fn zones_of_link_local_addresses_are_names_or_numbers_encoded_or_not() {
        // The loopback interface has the number 1 in every network namespace.
        for zone in ["%25lo", "%lo", "%251", "%1"] {
            for scheme in ["homa+udp", "homa"] {
                let uri = format!("{scheme}://[fe80::2{zone}]:4000");
                let target = Target::to_call(&uri).unwrap();
                assert_eq!(target.to_string(), format!("{scheme}://[fe80::2%1]:4000"));
                let again = Target::to_listen(&target.to_string());
                assert_eq!(again, Ok(target), "its own text is understood");
            }
        }
        let target = Target::to_listen("homa://[fe80::2%25]:1").unwrap();
        assert_eq!(target.to_string(), "homa://[fe80::2%25]:1", "number 25");
    }

    #[test]
    fn bad_uris_are_typed_errors_that_name_the_value_and_what_is_allowed() {
        let cases = [
            ("", "NoScheme", "homa+udp://"),
            ("127.0.0.1:1", "NoScheme", "homa+udp://"),
            ("http://h:1", "UnknownScheme", "homa+udp://"),
            ("homa://h", "NoPort", "host:port"),
            ("homa://h:0", "PortZero", "1 to 65535"),
            ("homa+udp://h", "NoPort", "host:port"),
            ("homa+udp://h:", "NoPort", "host:port"),
            ("homa+udp://[::1]", "NoPort", "host:port"),
            ("homa+udp://h:0", "PortZero", "1 to 65535"),
            ("homa+udp://h:65536", "Port ", "65535"),
            ("homa+udp://h:+1", "Port ", "65535"),
            ("homa+udp://h:x", "Port ", "65535"),
            ("homa+udp://:1", "Host", "IPv6"),
            ("homa+udp://::1:1", "Host", "IPv6"),
            ("homa+udp://[::1:1", "Host", "IPv6"),
            ("homa+udp://[h]:1", "Host", "IPv6"),
            ("homa+udp://[h%lo]:1", "Host", "IPv6"),
            ("homa+udp://[fe80::1]:1", "NoZone", "%25eth0"),
            ("homa://[febf::1]:1", "NoZone", "%25eth0"),
            ("homa+udp://[fe80::1%]:1", "Zone ", "interface"),
            ("homa+udp://[fe80::1%0]:1", "Zone ", "interface"),
            ("homa+udp://[fe80::1%no-such-if]:1", "Zone ", "interface"),
            ("homa+udp://[fe80::1%25a b]:1", "Zone ", "interface"),
            ("homa+udp://[fe80::1%4294967296]:1", "Zone ", "interface"),
            ("homa+udp://[::1%lo]:1", "Zone ", "link-local"),
            ("homa+udp://[2001:db8::1%1]:1", "Zone ", "link-local"),
            ("homa+udp://a b:1", "Host", "IPv6"),
            ("homa+udp://224.0.0.1:1", "NotOneHost", "one host"),
            ("homa+udp://255.255.255.255:1", "NotOneHost", "one host"),
            ("homa://[ff02::1]:1", "NotOneHost", "one host"),
            ("homa+udp://h:1/p", "Unexpected", "has a path, expected"),
            ("homa+udp://h:1?q", "Unexpected", "query"),
            ("homa+udp://h:1#f", "Unexpected", "fragment"),
            (
                "homa+udp://u@h:1",
                "Unexpected",
                "has user information, expected",
            ),
            ("homa+mem://", "Name", "letters"),
            ("homa+mem://a:1", "Name", "letters"),
        ];
        for (uri, expected, allowed) in cases {
            let error = Target::to_call(uri).unwrap_err();
            let debug = format!("{error:?}");
            assert!(debug.starts_with(expected), "{uri:?}: {debug}");
            let text = error.to_string();
            assert!(text.contains(&format!("{uri:?}")), "{text}");
            assert!(text.contains(allowed), "{text}");
        }
    }
}
