//! A line that tells people how far a long run has come.

use std::io::{IsTerminal as _, Write as _};

/// Shows `text` in place of the last one, if anyone looks.
pub(crate) fn show(text: &str) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(err, "\r{text}").and_then(|()| err.flush());
    }
}

/// Takes the line away.
pub(crate) fn clear() {
    show(&" ".repeat(60));
    show("");
}
