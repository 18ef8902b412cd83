//! Changes of a text at several places.

use std::ops::Range;

/// A change of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) at: Range<usize>,
    pub(super) text: String,
}

impl Edit {
    pub(super) fn insert(at: usize, text: impl Into<String>) -> Self {
        Self {
            at: at..at,
            text: text.into(),
        }
    }
}

/// Those of `edits` that do not overlap with one before them; the others come in the next round.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let mut out = String::with_capacity(text.len() + edits.len());
    let mut done = 0;
    for edit in edits {
        if let Some(before) = text.get(done..edit.at.start) {
            out.push_str(before);
            out.push_str(&edit.text);
            done = edit.at.end;
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}
