//! Makes the comments of `.proto` files fit for rustdoc.
//!
//! Rustdoc compiles and runs code blocks that don't say what they are, and those marked as Rust.
//! So blocks by fence get a language, and blocks by indentation get a fence. References of the form
//! `[Book][library.v1.Book]`, a convention in `.proto` files, would be broken links: only their
//! text is kept. (URLs and other brackets are escaped by prost-build.) `<name>` would be taken for
//! HTML. Characters that rustc refuses in comments are left out.

use std::collections::BTreeSet;

use prost_types::{FileDescriptorSet, source_code_info::Location};

use crate::items;

/// How much deeper than the text around it a line must be to be code, in Markdown.
const CODE_INDENT: usize = 4;

/// Rewrites all comments that become documentation.
pub(crate) fn make_safe(set: &mut FileDescriptorSet) {
    let infos = set
        .file
        .iter_mut()
        .filter_map(|file| file.source_code_info.as_mut());
    for location in infos.flat_map(|info| &mut info.location) {
        let comments = [
            &mut location.leading_comments,
            &mut location.trailing_comments,
        ];
        for comment in comments {
            if let Some(text) = comment.take().filter(|text| !text.trim().is_empty()) {
                *comment = Some(for_rustdoc(&without_refused(&text)));
            }
        }
        for text in &mut location.leading_detached_comments {
            *text = without_refused(text);
        }
    }
}

/// Gives every item a place in the source, if any has one: prost-build panics otherwise.
pub(crate) fn complete_places(set: &mut FileDescriptorSet) {
    for file in &mut set.file {
        let Some(info) = &file.source_code_info else {
            continue;
        };
        let known: BTreeSet<_> = info.location.iter().map(|place| &place.path).collect();
        let mut missing = Vec::new();
        items::walk(file, |path, _| {
            let path = path.into_vec();
            if !known.contains(&path) {
                missing.push(Location {
                    path,
                    ..Location::default()
                });
            }
        });
        file.source_code_info
            .get_or_insert_default()
            .location
            .extend(missing);
    }
}

/// Gives fields that are groups the comment of the message that such a field declares as well.
pub(crate) fn document_groups(set: &mut FileDescriptorSet) {
    for file in &mut set.file {
        let groups = items::groups(file);
        let Some(info) = &mut file.source_code_info else {
            continue;
        };
        for (field, message) in groups {
            let comment_of = |path: &[i32]| {
                let mut places = info.location.iter();
                let place = places.find(|place| place.path == path)?;
                place.leading_comments.clone()
            };
            let (field, comment) = (field.into_vec(), comment_of(&message.into_vec()));
            let mut places = info.location.iter_mut();
            match places.find(|place| place.path == field) {
                Some(place) => place.leading_comments = place.leading_comments.take().or(comment),
                None => info.location.push(Location {
                    path: field,
                    leading_comments: comment,
                    ..Location::default()
                }),
            }
        }
    }
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
    let lines: Vec<_> = text.split('\n').map(str::trim_end).collect();
    lines.join("\n")
}

fn for_rustdoc(comment: &str) -> String {
    let lines = comment.lines().filter(|line| !line.trim().is_empty());
    let margin = lines.map(indent).min().unwrap_or(0);
    let mut marker = Marker {
        out: Vec::new(),
        margin,
        text: margin,
        block: Block::Text,
    };
    for line in comment.lines() {
        marker.line(line);
    }
    if marker.block == Block::Code {
        marker.fence("```");
    }
    let mut out = marker.out.join("\n");
    if comment.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// What the last line belonged to.
#[derive(PartialEq)]
enum Block {
    Text,
    /// A blank line after text: only here can code by indentation begin.
    Blank,
    Code,
    /// Code by fence, with the characters that end it.
    Fenced(String),
}

struct Marker {
    out: Vec<String>,
    /// Indentation of the comment as a whole.
    margin: usize,
    /// Indentation of the text at this place: deeper than the margin in a list item.
    text: usize,
    block: Block,
}

impl Marker {
    fn line(&mut self, line: &str) {
        let content = line.trim();
        if let Block::Fenced(end) = &self.block {
            if content.starts_with(end.as_str())
                && content.trim_start_matches(['`', '~']).is_empty()
            {
                self.block = Block::Text;
            }
            self.out.push(line.to_owned());
        } else if content.is_empty() {
            if self.block == Block::Text {
                self.block = Block::Blank;
            }
            self.out.push(line.to_owned());
        } else if self.block != Block::Text && indent(line) >= self.text + CODE_INDENT {
            if self.block != Block::Code {
                self.fence("```text");
            }
            self.block = Block::Code;
            self.out.push(line.to_owned());
        } else {
            self.text_line(line, content);
        }
    }

    fn text_line(&mut self, line: &str, content: &str) {
        match self.block {
            Block::Code => self.fence("```"),
            Block::Blank if indent(line) < self.text => self.text = self.margin,
            _ => {}
        }
        if let Some(width) = list_marker_width(content) {
            self.text = indent(line) + width;
        }
        let fence: String = content
            .chars()
            .take_while(|&c| matches!(c, '`' | '~'))
            .collect();
        if fence.len() < 3 {
            self.block = Block::Text;
            self.out
                .push(without_tags(&without_links(&without_references(line))));
            return;
        }
        let runs = content
            .trim_start_matches(['`', '~'])
            .split([',', ' '])
            .all(is_doctest_word);
        let before = line.split(&fence).next().unwrap_or_default();
        self.out.push(if runs {
            format!("{before}{fence}text")
        } else {
            line.to_owned()
        });
        self.block = Block::Fenced(fence);
    }

    fn fence(&mut self, fence: &str) {
        self.out.push(format!(" {fence}"));
    }
}

/// Replaces each `[text][protobuf.Name]` by its text.
fn without_references(line: &str) -> String {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_'))
    };
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("][") {
        match (before.rsplit_once('['), after.split_once(']')) {
            (Some((start, text)), Some((name, behind))) if is_name(name) && !text.contains(']') => {
                out.push_str(start);
                out.push_str(text);
                rest = behind;
            }
            _ => {
                out.push_str(before);
                out.push_str("][");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Escapes brackets that rustdoc would take for a link: prost-build overlooks every other one of
/// several in a row.
fn without_links(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    let mut is_code = false;
    while let Some((before, after)) = rest.split_once('[') {
        is_code ^= before.matches('`').count() % 2 == 1;
        out.push_str(before);
        let is_open = !is_code && !before.ends_with(['\\', ']']);
        match after.split_once(']') {
            Some((text, behind))
                if is_open && !text.contains(['[', '`']) && !behind.starts_with(['(', '[']) =>
            {
                out.push_str(&format!("\\[{text}\\]"));
                rest = behind;
            }
            _ => {
                out.push('[');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Escapes what rustdoc would take for an HTML tag, outside of code.
fn without_tags(line: &str) -> String {
    let mut out = String::new();
    for (index, part) in line.split('`').enumerate() {
        if index > 0 {
            out.push('`');
        }
        let is_code = index % 2 == 1;
        let mut rest = part;
        while let Some((before, after)) = rest.split_once('<').filter(|_| !is_code) {
            let is_tag = after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
            let is_link = after.starts_with("http://") || after.starts_with("https://");
            out.push_str(before);
            out.push_str(if is_tag && !is_link { "\\<" } else { "<" });
            rest = after;
        }
        out.push_str(rest);
    }
    out
}

/// Whether rustdoc still takes a code block for Rust when its info string has this word.
fn is_doctest_word(word: &str) -> bool {
    let known = [
        "",
        "rust",
        "ignore",
        "no_run",
        "should_panic",
        "compile_fail",
        "test_harness",
    ];
    known.contains(&word) || word.starts_with("edition") || word.starts_with("ignore-")
}

/// Indentation of a line in the documentation: prost-build adds a space to lines that begin with
/// none or with several.
fn indent(line: &str) -> usize {
    let blank = line.chars().take_while(|c| c.is_whitespace());
    match blank.map(|c| if c == '\t' { CODE_INDENT } else { 1 }).sum() {
        1 => 1,
        columns => columns + 1,
    }
}

/// Width of `- `, `* `, `+ `, `1. ` or `1) ` at the start of a list item.
fn list_marker_width(content: &str) -> Option<usize> {
    let marker = content.split(' ').next()?;
    let number = marker.trim_end_matches(['.', ')']);
    let is_number = !number.is_empty()
        && number.len() + 1 == marker.len()
        && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_item = matches!(marker, "-" | "*" | "+") || is_number;
    is_item.then(|| content.len() - content.trim_start_matches(marker).trim_start().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        let text = " First line.\n   continued deeper\n\n Second.\n - item\n   more\n";
        assert_eq!(for_rustdoc(text), text);
        assert_eq!(for_rustdoc(""), "");
    }

    #[test]
    fn code_by_indentation_gets_a_fence() {
        assert_eq!(
            for_rustdoc(" Example:\n\n     let x = 1;\n\n     f(x);\n Done.\n"),
            " Example:\n\n ```text\n     let x = 1;\n\n     f(x);\n ```\n Done.\n"
        );
    }

    #[test]
    fn code_at_the_end_is_closed() {
        assert_eq!(
            for_rustdoc(" Example:\n\n     f(x);\n"),
            " Example:\n\n ```text\n     f(x);\n ```\n"
        );
    }

    #[test]
    fn four_spaces_are_code_because_one_more_is_added() {
        assert_eq!(
            for_rustdoc(" A\n\n    f()\n"),
            " A\n\n ```text\n    f()\n ```\n"
        );
        assert_eq!(for_rustdoc(" A\n\n   f()\n"), " A\n\n   f()\n");
    }

    #[test]
    fn paragraphs_of_a_list_item_are_not_code() {
        let text = " 1. First\n\n    still first\n\n Text\n";
        assert_eq!(for_rustdoc(text), text);
    }

    #[test]
    fn references_to_protobuf_names_keep_only_their_text() {
        assert_eq!(
            for_rustdoc(" See [Get][a.b.Get], [x][y](z) and [List][a.List].\n"),
            " See Get, x(z) and List.\n"
        );
        assert_eq!(
            for_rustdoc(" [0, 9) and a[1][b c], ][\n"),
            " [0, 9) and a[1][b c], ][\n"
        );
    }

    #[test]
    fn brackets_that_are_no_links_are_escaped_once() {
        assert_eq!(
            for_rustdoc(" [a] [b], `x[0] [y]`, \\[c\\] [d](http://e) [f]\n"),
            " \\[a\\] \\[b\\], `x[0] [y]`, \\[c\\] [d](http://e) \\[f\\]\n"
        );
    }

    #[test]
    fn fences_without_a_language_or_with_rust_become_text() {
        assert_eq!(
            for_rustdoc(" ```\n x\n ```\n y\n"),
            " ```text\n x\n ```\n y\n"
        );
        assert_eq!(
            for_rustdoc(" ```rust,no_run\n x\n ```\n"),
            " ```text\n x\n ```\n"
        );
    }

    #[test]
    fn tags_are_escaped_outside_of_code() {
        assert_eq!(
            for_rustdoc(" A map<string, T> or `Vec<T>`, a < b, </p> <https://x.org>\n"),
            " A map\\<string, T> or `Vec<T>`, a < b, \\</p> <https://x.org>\n"
        );
    }

    #[test]
    fn characters_that_rustc_refuses_are_left_out() {
        assert_eq!(without_refused(" a\r\n b\rc \u{202e}d\0\n"), " a\n b c d\n");
    }

    #[test]
    fn fences_with_another_language_stay() {
        let text = " ```json\n     {}\n\n         1\n ```\n";
        assert_eq!(for_rustdoc(text), text);
    }
}
