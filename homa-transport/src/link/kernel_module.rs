//! Whether the Homa kernel module handles protocol 146 on this host.

use std::io;

/// The protocols that have sockets, one per line, name first. It lists what is loaded and loads nothing,
/// unlike an attempt to open a socket.
const PROTOCOLS: &str = "/proc/net/protocols";

/// True if the module is loaded. Source: homa_plumbing.c, `homa_prot` and `homav6_prot`.
///
/// # Errors
/// If the list cannot be read.
pub(crate) fn is_loaded() -> io::Result<bool> {
    let protocols = std::fs::read_to_string(PROTOCOLS)
        .map_err(|error| io::Error::new(error.kind(), format!("{PROTOCOLS}: {error}")))?;
    Ok(names_homa(&protocols))
}

fn names_homa(protocols: &str) -> bool {
    let mut names = protocols
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.any(|name| name == "HOMA" || name == "HOMAv6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_known_by_its_protocols() {
        let without = "protocol  size sockets  memory press maxhdr\n\
                       RAWv6     1344      0      -1   NI       0   yes  kernel\n\
                       UDP       1344      0       0   NI       0   yes  kernel\n";
        assert!(!names_homa(without));
        assert!(!names_homa(""));
        assert!(!names_homa(
            "HOMAGE 1 2\nXHOMA 1 2\nhoma 1 2\nUDP 1 2 HOMA\n"
        ));
        for name in ["HOMA", "HOMAv6"] {
            assert!(names_homa(&format!(
                "{without}{name}  1200  3 -1 NI 0 no homa\n"
            )));
        }
    }
}
