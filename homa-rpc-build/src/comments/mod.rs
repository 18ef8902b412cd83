//! Carries the comments of `.proto` files over to rustdoc.
//!
//! prost-build changes comments line by line, and more so if another crate turns on its feature
//! `cleanup-markdown`. So it gets a mark for each comment instead, and the text takes the place of
//! the mark in the generated code.

mod addresses;
mod edit;
mod faults;
mod markdown;
mod places;
#[cfg(test)]
mod random;

use std::rc::Rc;

use prost_types::{FileDescriptorSet, source_code_info::Location};

pub(crate) use places::{complete_places, document_groups};

/// What a mark begins with. Only marks are in comments that prost-build writes itself.
const MARK: &str = "homadoc";

/// The comments that [`take`](Docs::take) found, as lines for rustdoc.
#[derive(Clone, Debug, Default)]
pub(crate) struct Docs(Rc<Vec<Vec<String>>>);

impl Docs {
    /// Puts marks in the place of all comments that become documentation.
    pub(crate) fn take(set: &mut FileDescriptorSet) -> Self {
        let mut docs = Vec::new();
        let infos = set
            .file
            .iter_mut()
            .filter_map(|file| file.source_code_info.as_mut());
        for location in infos.flat_map(|info| &mut info.location) {
            let text = comment(location);
            location.leading_detached_comments.clear();
            location.trailing_comments = None;
            location.leading_comments = text.map(|text| {
                docs.push(markdown::for_rustdoc(&text));
                format!("{MARK}{}", docs.len() - 1)
            });
        }
        Self(Rc::new(docs))
    }

    /// The lines for a comment that is a mark.
    pub(crate) fn lines(&self, comment: &str) -> Option<&[String]> {
        let index: usize = comment.trim().strip_prefix(MARK)?.parse().ok()?;
        self.0.get(index).map(Vec::as_slice)
    }

    /// Puts the comments in the place of the marks in generated code.
    pub(crate) fn put_back(&self, code: &str) -> String {
        let mut out = String::with_capacity(code.len());
        for line in code.lines() {
            let mark = line.trim_start().strip_prefix("///");
            match mark.and_then(|mark| self.lines(mark)) {
                Some(docs) => docs.iter().for_each(|doc| {
                    out.push_str("///");
                    out.push_str(doc);
                    out.push('\n');
                }),
                None => {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
        out
    }
}

/// The comment before an item and the one behind it, as one text.
fn comment(location: &Location) -> Option<String> {
    let parts = [&location.leading_comments, &location.trailing_comments];
    let parts: Vec<_> = parts
        .into_iter()
        .flatten()
        .map(|part| without_margin(&without_refused(part)))
        .filter(|part| !part.is_empty())
        .collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

/// A carriage return within a line, and characters that change the direction of text, are errors
/// in the comments of Rust; lints mind tabs and blanks at the end of a line.
fn without_refused(comment: &str) -> String {
    let is_refused = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\0');
    let mut text = comment
        .replace("\r\n", "\n")
        .replace('\r', " ")
        .replace('\t', "    ");
    text.retain(|c| !is_refused(c));
    text
}

/// Takes off what all lines are indented by, and blank lines at both ends.
fn without_margin(comment: &str) -> String {
    let lines: Vec<_> = comment.lines().map(str::trim_end).collect();
    let indent = |line: &&str| line.len() - line.trim_start_matches(' ').len();
    let margin = lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(indent)
        .min()
        .unwrap_or(0);
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.get(margin..).unwrap_or_default())
        .collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(leading: &str, trailing: &str) -> Location {
        Location {
            leading_comments: Some(leading.to_owned()),
            trailing_comments: Some(trailing.to_owned()),
            leading_detached_comments: vec![" detached".to_owned()],
            ..Location::default()
        }
    }

    fn text(leading: &str, trailing: &str) -> Option<String> {
        comment(&location(leading, trailing))
    }

    #[test]
    fn the_comment_behind_an_item_follows_the_one_before_it() {
        assert_eq!(text(" a\n b\n", "  c\n").unwrap(), "a\nb\n\nc");
        assert_eq!(text("\n\n", " c\n").unwrap(), "c");
        assert_eq!(text(" ", ""), None);
    }

    #[test]
    fn only_what_all_lines_are_indented_by_is_taken_off() {
        assert_eq!(text("   a\n     b\n\n  c\n", "").unwrap(), " a\n   b\n\nc");
    }

    #[test]
    fn characters_that_rustc_refuses_are_left_out() {
        assert_eq!(text(" a\r\n b\rc \u{202e}d\0  \n", "").unwrap(), "a\nb c d");
    }

    #[test]
    fn prost_build_sees_marks_only() {
        use prost_types::{FileDescriptorProto, SourceCodeInfo};
        let location = vec![location(" a [b]\n", "     c\n"), location("", "")];
        let file = FileDescriptorProto {
            source_code_info: Some(SourceCodeInfo { location }),
            ..FileDescriptorProto::default()
        };
        let mut set = FileDescriptorSet { file: vec![file] };
        let docs = Docs::take(&mut set);
        let info = set.file.remove(0).source_code_info.unwrap();
        let marked = Location {
            leading_comments: Some("homadoc0".to_owned()),
            ..Location::default()
        };
        assert_eq!(info.location, [marked, Location::default()]);
        assert_eq!(
            docs.put_back("struct A {\n  /// homadoc0\n  b: u8\n}\n/// homadoc7\n"),
            "struct A {\n/// a \\[b]\n///\n/// c\n  b: u8\n}\n/// homadoc7\n"
        );
    }
}
