//! Rewrites what protoc accepts in a `.proto` file and our parser does not.
//!
//! Lines stay where they are. Where a line gets longer, that is noted.

use std::ops::Range;

use prost_types::FileDescriptorProto;

/// Stands for `-inf` as the value of an option: as long as `inf`, and no name that anyone has.
pub(super) const MINUS_INFINITY: &str = "_nf";

/// Maximum depth of nested brackets: each level takes stack of the parser.
pub(super) const MAX_DEPTH: usize = 100;

/// A file as the parser can read it.
pub(super) struct Adapted {
    pub(super) text: String,
    /// Where, in the text, brackets are too deep.
    pub(super) too_deep: Option<usize>,
    longer: Vec<Longer>,
}

/// Text put into a line: what follows has moved.
#[derive(Debug, PartialEq, Eq)]
struct Longer {
    /// Line and column in bytes, both from 0, where the text begins.
    line: usize,
    column: usize,
    bytes: usize,
}

impl Adapted {
    /// Reads a file without its byte order mark.
    pub(super) fn new(source: &str) -> Self {
        let tokens = tokens(source);
        let mut edits = ranges_of_one_number(source, &tokens);
        edits.extend(negative_names(source, &tokens));
        edits.extend(blank_lines_of_comments(source, &tokens));
        edits.sort_by_key(|(at, _)| at.start);
        let mut text = String::with_capacity(source.len());
        let mut longer = Vec::new();
        let mut done = 0;
        for (at, new) in edits {
            text.push_str(source.get(done..at.start).unwrap_or_default());
            if new.len() > at.len() {
                let before = text.rsplit('\n').next().unwrap_or_default();
                longer.push(Longer {
                    line: text.matches('\n').count(),
                    column: before.len(),
                    bytes: new.len() - at.len(),
                });
            }
            text.push_str(&new);
            done = at.end;
        }
        text.push_str(source.get(done..).unwrap_or_default());
        let too_deep = too_deep(&text);
        Self {
            text,
            too_deep,
            longer,
        }
    }

    /// The column in the file of a column in the text, both in bytes from 0.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        let before = self.longer.iter().filter(|longer| longer.line == line);
        let added = before
            .filter(|longer| longer.column < column)
            .map(|longer| longer.bytes.min(column - longer.column));
        column - added.sum::<usize>()
    }

    /// Moves what the parser says about places to where it is in the file.
    pub(super) fn correct_places(&self, file: &mut FileDescriptorProto) {
        if self.longer.is_empty() {
            return;
        }
        let infos = file.source_code_info.iter_mut();
        for location in infos.flat_map(|info| &mut info.location) {
            match location.span.as_mut_slice() {
                [line, start, end] => {
                    (*start, *end) = (self.moved(*line, *start), self.moved(*line, *end));
                }
                [line, start, last, end] => {
                    (*start, *end) = (self.moved(*line, *start), self.moved(*last, *end));
                }
                _ => {}
            }
        }
    }

    fn moved(&self, line: i32, column: i32) -> i32 {
        let (Ok(at_line), Ok(at_column)) = (usize::try_from(line), usize::try_from(column)) else {
            return column;
        };
        i32::try_from(self.column(at_line, at_column)).unwrap_or(column)
    }
}

/// A replacement.
type Edit = (Range<usize>, String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A name or a number.
    Word,
    /// One character.
    Sign,
    String,
    BlockComment,
}

struct Token<'a> {
    kind: Kind,
    start: usize,
    text: &'a str,
}

impl Token<'_> {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }
}

/// The words and signs of a file, and its comments over several lines.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(rest) = source.get(start..).filter(|rest| !rest.is_empty()) {
        let (kind, length) = token(rest);
        if let (Some(kind), Some(text)) = (kind, rest.get(..length)) {
            tokens.push(Token { kind, start, text });
        }
        start += length.max(1);
    }
    tokens
}

/// The kind, if it matters, and the length of what `rest` begins with.
fn token(rest: &str) -> (Option<Kind>, usize) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let while_true = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
    let first = rest.chars().next().unwrap_or_default();
    if rest.starts_with("//") {
        (None, rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        let end = rest.find("*/").map_or(rest.len(), |at| at + 2);
        (Some(Kind::BlockComment), end)
    } else if matches!(first, '"' | '\'') {
        (Some(Kind::String), string(rest, first))
    } else if is_word(first) {
        (
            Some(Kind::Word),
            while_true(|c| c.is_ascii_alphanumeric() || c == '_'),
        )
    } else if first.is_whitespace() {
        (None, while_true(char::is_whitespace))
    } else {
        (Some(Kind::Sign), first.len_utf8())
    }
}

/// The length of a string in quotes; it ends with its line if it is not closed.
fn string(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The first bracket that has too many around it.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let found = tokens(text).into_iter().find(|token| {
        match token.text {
            "{" | "[" | "<" | "(" => depth += 1,
            "}" | "]" | ">" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    })?;
    Some(found.start)
}

/// `extensions 7 [..]` to `extensions 7 to 7 [..]`.
fn ranges_of_one_number(source: &str, tokens: &[Token<'_>]) -> Vec<Edit> {
    let code: Vec<_> = tokens
        .iter()
        .filter(|token| token.kind != Kind::BlockComment)
        .collect();
    let mut edits = Vec::new();
    for (index, token) in code.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| code.get(index));
        let begins = before.is_none_or(|before| matches!(before.text, "{" | "}" | ";"));
        if token.text != "extensions" || !begins {
            continue;
        }
        let ranges = code.get(index..).unwrap_or_default();
        let end = ranges
            .iter()
            .position(|token| matches!(token.text, "[" | ";" | "}"));
        let Some([.., before, number, bracket]) = end.and_then(|end| ranges.get(..=end)) else {
            continue;
        };
        let is_number = number.text.starts_with(|c: char| c.is_ascii_digit());
        if bracket.text == "[" && is_number && matches!(before.text, "extensions" | ",") {
            let end = number.range().end;
            let text = source.get(number.range()).unwrap_or_default();
            edits.push((end..end, format!(" to {text}")));
        }
    }
    edits
}

/// The option values `-inf` and `-nan`, which are names with a sign. Defaults are read as they are.
fn negative_names(_: &str, tokens: &[Token<'_>]) -> Vec<Edit> {
    let code: Vec<_> = tokens
        .iter()
        .filter(|token| token.kind != Kind::BlockComment)
        .collect();
    let mut edits = Vec::new();
    for window in code.windows(5) {
        let [before, option, equals, minus, name] = window else {
            continue;
        };
        let is_default = option.text == "default" && matches!(before.text, "[" | ",");
        if equals.text != "=" || minus.text != "-" || is_default {
            continue;
        }
        let value = match name.text {
            "inf" => MINUS_INFINITY,
            "nan" => "nan",
            _ => continue,
        };
        edits.push((minus.range(), " ".to_owned()));
        edits.push((name.range(), value.to_owned()));
    }
    edits
}

/// The parser joins the paragraphs of a comment, unless a star is on the line between them.
fn blank_lines_of_comments(_: &str, tokens: &[Token<'_>]) -> Vec<Edit> {
    let comments = tokens
        .iter()
        .filter(|token| token.kind == Kind::BlockComment);
    let mut edits = Vec::new();
    for comment in comments {
        let mut start = comment.start;
        let lines = comment.text.split('\n');
        for line in lines {
            if line.trim().is_empty() {
                edits.push((start..start, "*".to_owned()));
            }
            start += line.len() + 1;
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(source: &str) -> String {
        Adapted::new(source).text
    }

    #[test]
    fn what_the_parser_can_read_stays_as_it_is() {
        for source in [
            "extensions 4 to 6 [a = 1]; extensions 7;",
            "optional float x = 1 [default = -inf, default = - nan];",
            "// extensions 7 [a]\n\"extensions 7 [a] = -inf\" 'it\\'s = -inf'",
            "int32 extensions = 7 [a = -1];",
            "/* a\n * b\n */",
            "\"never closed\n/* nor this",
            "é extensions",
        ] {
            assert_eq!(adapted(source), source);
        }
    }

    #[test]
    fn a_single_number_becomes_a_range_and_columns_are_those_of_the_file() {
        let source = "{\n extensions 4 to 5, 7/**/[a = 1]; b\n}";
        let adapted = Adapted::new(source);
        assert_eq!(
            adapted.text,
            "{\n extensions 4 to 5, 7 to 7/**/[a = 1]; b\n}"
        );
        assert_eq!(adapted.column(1, 20), 20);
        assert_eq!(adapted.column(1, 23), 21);
        assert_eq!(adapted.column(1, 31), 26);
        assert_eq!(adapted.column(2, 31), 31);
    }

    #[test]
    fn infinities_keep_the_width_of_the_line() {
        assert_eq!(
            adapted("[(a) = -inf, (b).default = - nan]"),
            "[(a) =  _nf, (b).default =   nan]"
        );
        assert_eq!(
            adapted("option (a) = -/* */inf;"),
            "option (a) =  /* */_nf;"
        );
    }

    #[test]
    fn paragraphs_of_comments_stay_apart() {
        assert_eq!(adapted("/* a\n\n   \n b */"), "/* a\n*\n*   \n b */");
    }
}
