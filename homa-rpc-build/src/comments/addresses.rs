//! Addresses of web pages in plain text.

use super::edit::Edit;

/// Whether a target of a link is an address, and not the path of an item or of a file.
pub(super) fn is_address(target: &str) -> bool {
    let is_start = |scheme: &&str| target.starts_with(*scheme);
    ["http://", "https://", "ftp://", "mailto:"]
        .iter()
        .any(is_start)
}

/// Makes links of the addresses in `text`, as rustdoc wants them.
pub(super) fn links(text: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut done = 0;
    while let Some(rest) = text.get(done..) {
        let starts = ["http://", "https://"].map(|scheme| rest.find(scheme));
        let Some(start) = starts.into_iter().flatten().min() else {
            break;
        };
        let address = address(rest.get(start..).unwrap_or_default());
        let start = done + start;
        let end = start + address.len();
        edits.push(Edit {
            at: start..end,
            text: format!("<{address}>"),
        });
        done = end;
    }
    edits
}

/// The address at the beginning of `text`, without the punctuation of the sentence it is in.
fn address(text: &str) -> &str {
    let is_end = |c: char| c.is_whitespace() || c.is_control() || "<>\"`\\|".contains(c);
    let mut address = text.split(is_end).next().unwrap_or_default();
    while let Some(last) = address.chars().next_back() {
        let closes_nothing =
            |open, close| address.matches(close).count() > address.matches(open).count();
        let is_outside = match last {
            ')' => closes_nothing('(', ')'),
            ']' => closes_nothing('[', ']'),
            '}' => closes_nothing('{', '}'),
            _ => ".,;:!?'*_~".contains(last),
        };
        if !is_outside || address.ends_with("://") {
            break;
        }
        address = address
            .get(..address.len() - last.len_utf8())
            .unwrap_or_default();
    }
    address
}
