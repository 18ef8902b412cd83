//! Where to call and where to listen: `homa://host:port`, `homa+udp://host:port`, `homa+mem://name`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::str::FromStr;

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

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wire {
    /// `homa://`: IP protocol 146, by the kernel module or by raw sockets.
    Homa,
    /// `homa+udp://`: the same packets in UDP datagrams.
    Udp,
    /// `homa+mem://`: within the process.
    Mem,
}

impl Wire {
    /// The scheme of its URIs.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Homa => "homa",
            Self::Udp => "homa+udp",
            Self::Mem => "homa+mem",
        }
    }
}

/// Where to call or to listen: `homa://host:port`, `homa+udp://host:port` or `homa+mem://name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    wire: Wire,
    place: Place,
}

/// The place that a URI names on its wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A host by its name, which has to be looked up, and a port.
    Host {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// A name within the process.
    Process {
        /// The name.
        name: String,
    },
}

impl Uri {
    /// The URI of a socket on a wire that has addresses. `None` for [`Wire::Mem`], whose sockets have names.
    #[must_use]
    pub fn of_address(wire: Wire, addr: SocketAddr) -> Option<Self> {
        (wire != Wire::Mem).then_some(Self {
            wire,
            place: Place::Address(addr),
        })
    }

    /// Parses where to call, which takes a port other than 0.
    pub(crate) fn to_call(uri: &str) -> Result<Self, UriError> {
        let parsed: Self = uri.parse()?;
        match parsed.port() {
            Some(0) => Err(UriError::PortZero(uri.to_owned())),
            _ => Ok(parsed),
        }
    }

    /// The wire.
    #[must_use]
    pub const fn wire(&self) -> Wire {
        self.wire
    }

    /// The place.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The port; `None` within the process.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Address(addr) => Some(addr.port()),
            Place::Host { port, .. } => Some(*port),
            Place::Process { .. } => None,
        }
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Err(UriError::NoScheme(uri.to_owned()));
        };
        // Schemes are the same in either case. Source: RFC 3986, section 3.1.
        let wire = [Wire::Homa, Wire::Udp, Wire::Mem]
            .into_iter()
            .find(|wire| wire.scheme().eq_ignore_ascii_case(scheme))
            .ok_or_else(|| UriError::UnknownScheme {
                uri: uri.to_owned(),
                scheme: scheme.to_owned(),
            })?;
        let place = match wire {
            Wire::Homa | Wire::Udp => parse_net(uri, rest)?,
            Wire::Mem => parse_mem(uri, rest)?,
        };
        Ok(Self { wire, place })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.wire.scheme();
        match &self.place {
            Place::Address(addr) => write!(f, "{scheme}://{addr}"),
            Place::Host { name, port } => write!(f, "{scheme}://{name}:{port}"),
            Place::Process { name } => write!(f, "{scheme}://{name}"),
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

fn parse_net(uri: &str, rest: &str) -> Result<Place, UriError> {
    let authority = only_authority(uri, rest)?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return Err(UriError::Host(uri.to_owned()));
            };
            (parse_ipv6(uri, address)?, port.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (parse_host(uri, host)?, Some(port)),
            None => (parse_host(uri, authority)?, None),
        },
    };
    if let Place::Address(addr) = host
        && (addr.ip().is_multicast() || addr.ip() == IpAddr::V4(Ipv4Addr::BROADCAST))
    {
        return Err(UriError::NotOneHost(uri.to_owned()));
    }
    let port = parse_port(uri, port)?;
    Ok(match host {
        Place::Address(mut addr) => {
            addr.set_port(port);
            Place::Address(addr)
        }
        Place::Host { name, .. } => Place::Host { name, port },
        place @ Place::Process { .. } => place,
    })
}

fn parse_port(uri: &str, port: Option<&str>) -> Result<u16, UriError> {
    let port = match port {
        None | Some("") => return Err(UriError::NoPort(uri.to_owned())),
        Some(port) => port,
    };
    let all_digits = port.bytes().all(|b| b.is_ascii_digit());
    let number = port.parse().ok().filter(|_| all_digits);
    number.ok_or_else(|| UriError::Port {
        uri: uri.to_owned(),
        port: port.to_owned(),
    })
}

/// A host without brackets, for the time being with port 0.
fn parse_host(uri: &str, host: &str) -> Result<Place, UriError> {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => return Ok(Place::Address((ip, 0).into())),
        // An IPv6 address needs brackets, else its end could be a port.
        Ok(IpAddr::V6(_)) => return Err(UriError::Host(uri.to_owned())),
        Err(_) => {}
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    // Longest DNS name. Source: RFC 1035, section 2.3.4.
    if host.is_empty() || host.len() > 253 || !host.bytes().all(good) {
        return Err(UriError::Host(uri.to_owned()));
    }
    Ok(Place::Host {
        name: host.to_owned(),
        port: 0,
    })
}

/// What stands between the brackets, with or without a zone, for the time being with port 0.
fn parse_ipv6(uri: &str, text: &str) -> Result<Place, UriError> {
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
    Ok(Place::Address(SocketAddrV6::new(ip, 0, 0, scope_id).into()))
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

fn parse_mem(uri: &str, rest: &str) -> Result<Place, UriError> {
    let name = only_authority(uri, rest)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(good) {
        return Err(UriError::Name(uri.to_owned()));
    }
    Ok(Place::Process {
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
            assert_eq!(Uri::to_call(uri).unwrap().to_string(), uri);
        }
        let slash = Uri::to_call("HOMA+UDP://127.0.0.1:4000/").unwrap();
        assert_eq!(slash.to_string(), "homa+udp://127.0.0.1:4000");
        assert!("homa+udp://0.0.0.0:0".parse::<Uri>().is_ok());
    }

    #[test]
    fn zones_of_link_local_addresses_are_names_or_numbers_encoded_or_not() {
        // The loopback interface has the number 1 in every network namespace.
        for zone in ["%25lo", "%lo", "%251", "%1"] {
            for scheme in ["homa+udp", "homa"] {
                let uri = format!("{scheme}://[fe80::2{zone}]:4000");
                let target = Uri::to_call(&uri).unwrap();
                assert_eq!(target.to_string(), format!("{scheme}://[fe80::2%1]:4000"));
                let again = target.to_string().parse();
                assert_eq!(again, Ok(target), "its own text is understood");
            }
        }
        let target = "homa://[fe80::2%25]:1".parse::<Uri>().unwrap();
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
            let error = Uri::to_call(uri).unwrap_err();
            let debug = format!("{error:?}");
            assert!(debug.starts_with(expected), "{uri:?}: {debug}");
            let text = error.to_string();
            assert!(text.contains(&format!("{uri:?}")), "{text}");
            assert!(text.contains(allowed), "{text}");
        }
    }
}
