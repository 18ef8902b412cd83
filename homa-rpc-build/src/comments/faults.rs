//! Finds what rustdoc would run, miss or swallow in a text, and what to write instead.

use std::ops::Range;

use pulldown_cmark::{
    BrokenLink, CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd,
};

use super::{addresses, edit::Edit};

/// The extensions of Markdown that rustdoc knows.
fn options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_SMART_PUNCTUATION
}

/// What has to be changed in `text`: nothing if rustdoc may have it.
pub(super) fn repairs(text: &str) -> Vec<Edit> {
    // Rustdoc looks up what has no target as the path of an item. So all of them count as links.
    let found = |_: BrokenLink<'_>| Some((CowStr::from("#"), CowStr::from("")));
    let parser = Parser::new_with_broken_link_callback(text, options(), Some(found));
    let definitions: Vec<(String, Range<usize>)> = parser
        .reference_definitions()
        .iter()
        .map(|(label, target)| (label.to_lowercase(), target.span.clone()))
        .collect();
    let mut finder = Finder {
        text,
        edits: Vec::new(),
        plain: None,
        inside: 0,
        used: Vec::new(),
    };
    for (event, range) in parser.into_offset_iter() {
        finder.event(event, range);
    }
    finder.end_of_plain_text();
    for (label, span) in definitions {
        if !finder.used.contains(&label) {
            finder.escape(span, '[');
        }
    }
    finder.edits
}

/// Goes over the events of a parser.
struct Finder<'a> {
    text: &'a str,
    edits: Vec<Edit>,
    /// Text that came last: the parser splits it where it pleases.
    plain: Option<Range<usize>>,
    /// How many blocks of code and links are around.
    inside: usize,
    /// Labels of definitions that links use.
    used: Vec<String>,
}

impl Finder<'_> {
    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        if matches!(event, Event::Text(_)) {
            return self.plain_text(range);
        }
        self.end_of_plain_text();
        match event {
            Event::Start(tag) => self.start(tag, range),
            Event::End(TagEnd::CodeBlock | TagEnd::Link | TagEnd::Image) => self.inside -= 1,
            Event::Html(_) | Event::InlineHtml(_) => self.escape(range, '<'),
            Event::FootnoteReference(_) => self.escape(range, '['),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>, range: Range<usize>) {
        match tag {
            Tag::CodeBlock(kind) => {
                self.inside += 1;
                match kind {
                    CodeBlockKind::Indented => self.fence(range),
                    CodeBlockKind::Fenced(info) if &*info == "text" => {}
                    CodeBlockKind::Fenced(_) => self.call_it_text(range),
                }
            }
            Tag::Link {
                link_type,
                dest_url,
                id,
                ..
            }
            | Tag::Image {
                link_type,
                dest_url,
                id,
                ..
            } => {
                self.inside += 1;
                self.link(link_type, &dest_url, &id, range);
            }
            Tag::FootnoteDefinition(_) => self.escape(range, '['),
            Tag::BlockQuote(_) => {
                let next = self.slice(&range).chars().nth(1);
                if next.is_some_and(|c| !matches!(c, ' ' | '\n' | '>')) {
                    self.escape(range, '>');
                }
            }
            Tag::Emphasis => self.emphasis(range, 1),
            Tag::Strong => self.emphasis(range, 2),
            Tag::Strikethrough if !self.slice(&range).starts_with("~~") => {
                self.emphasis(range, 1);
            }
            _ => {}
        }
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// Escapes the first `character` in `range`.
    fn escape(&mut self, range: Range<usize>, character: char) {
        if let Some(offset) = self.slice(&range).find(character) {
            self.edits.push(Edit::insert(range.start + offset, "\\"));
        }
    }

    /// Replaces the info string of a fence.
    fn call_it_text(&mut self, range: Range<usize>) {
        let block = self.slice(&range);
        let line = block.lines().next().unwrap_or_default();
        let fence = line.chars().next().unwrap_or('`');
        let info = line.trim_start_matches(fence);
        let end = range.start + line.len();
        self.edits.push(Edit {
            at: end - info.len()..end,
            text: "text".to_owned(),
        });
    }

    /// Puts a fence around code by indentation. It is within the same lists and quotes as the code.
    fn fence(&mut self, range: Range<usize>) {
        const INDENT: usize = 4;
        let line = self.text.get(..range.start).unwrap_or_default();
        let line = line.rfind('\n').map_or(0, |at| at + 1);
        let code = range.start.saturating_sub(INDENT).max(line);
        let around = self.slice(&(line..code));
        let around: String = around
            .chars()
            .map(|c| if c == '>' { c } else { ' ' })
            .collect();
        let end = range.start + self.slice(&range).trim_end().len();
        self.edits
            .push(Edit::insert(code, format!("```text\n{around}")));
        self.edits.push(Edit::insert(end, format!("\n{around}```")));
    }

    /// Leaves links to addresses. The others are text to rustdoc, or paths of items.
    fn link(&mut self, kind: LinkType, target: &str, label: &str, range: Range<usize>) {
        match kind {
            LinkType::Inline if addresses::is_address(target) => {}
            LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut
                if addresses::is_address(target) =>
            {
                self.used.push(label.to_lowercase());
            }
            LinkType::Email => {}
            LinkType::Autolink if addresses::is_address(target) => {}
            LinkType::Autolink => self.escape(range, '<'),
            LinkType::ReferenceUnknown => match self.protobuf_name(&range) {
                Some(text) => self.edits.push(Edit { at: range, text }),
                None => self.escape(range, '['),
            },
            _ => self.escape(range, '['),
        }
    }

    /// `[text][package.Name]` is how comments refer to items: the text, and the name if the text
    /// is not the end of it.
    fn protobuf_name(&self, range: &Range<usize>) -> Option<String> {
        let before = self.text.get(..range.start)?.chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ']' | ')' | '!')) {
            return None;
        }
        let (text, name) = self
            .slice(range)
            .strip_prefix('[')?
            .strip_suffix(']')?
            .rsplit_once("][")?;
        let is_word = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !name.contains('.') || !name.split('.').all(is_word) {
            return None;
        }
        let bare = text.trim_matches('`');
        let is_end = name
            .strip_suffix(bare)
            .is_some_and(|start| start.is_empty() || start.ends_with('.'));
        Some(match (is_end, bare.len() < text.len()) {
            (true, true) => format!("`{name}`"),
            (true, false) => name.to_owned(),
            (false, _) => format!("{text} ({name})"),
        })
    }

    /// Escapes the characters of an emphasis that was not meant: within words and patterns.
    fn emphasis(&mut self, range: Range<usize>, width: usize) {
        let (inner_start, inner_end) = (range.start + width, range.end.saturating_sub(width));
        let Some(inner) = self.text.get(inner_start..inner_end) else {
            return;
        };
        let starts = self.text.get(..range.start).unwrap_or_default();
        let ends = self.text.get(range.end..).unwrap_or_default();
        let is_open = |c: char| c.is_whitespace() || "([{\"'*_~-–—:>".contains(c);
        let is_shut = |c: char| c.is_whitespace() || ".,;:!?)]}\"'*_~-–—".contains(c);
        let is_text = |c: char| c.is_alphanumeric() || "`\"'([*_~<\\".contains(c);
        let is_dunder =
            self.slice(&range).starts_with("__") && !inner.contains(char::is_whitespace);
        let is_single_tilde = width == 1 && self.slice(&range).starts_with('~');
        let is_meant = starts.chars().next_back().is_none_or(is_open)
            && ends.chars().next().is_none_or(is_shut)
            && inner.starts_with(is_text);
        if !is_meant || is_dunder || is_single_tilde {
            let places = (range.start..inner_start).chain(inner_end..range.end);
            self.edits
                .extend(places.map(|place| Edit::insert(place, "\\")));
        }
    }

    fn plain_text(&mut self, range: Range<usize>) {
        match &mut self.plain {
            Some(plain) if plain.end == range.start => plain.end = range.end,
            _ => {
                self.end_of_plain_text();
                self.plain = Some(range);
            }
        }
    }

    fn end_of_plain_text(&mut self) {
        let Some(range) = self.plain.take().filter(|_| self.inside == 0) else {
            return;
        };
        let text = self.slice(&range);
        let mut edits = addresses::links(text);
        let is_escaped = self
            .text
            .get(..range.start)
            .is_some_and(|before| before.ends_with('\\'));
        for (offset, _) in text.match_indices('`') {
            if offset > 0 || !is_escaped {
                edits.push(Edit::insert(offset, "\\"));
            }
        }
        for edit in &mut edits {
            edit.at = edit.at.start + range.start..edit.at.end + range.start;
        }
        self.edits.extend(edits);
    }
}
