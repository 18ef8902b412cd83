//! Random comments, as rustdoc sees what becomes of them.

use proptest::prelude::*;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};

use super::{markdown::for_rustdoc, without_margin};

/// Pieces that comments are made of. `word` stands for a word that is nowhere else.
const PIECES: [&str; 64] = [
    "word",
    "word",
    "word",
    "word",
    " ",
    " ",
    "\n",
    "\n",
    "\n\n",
    "\n    ",
    "\n\n    ",
    "\n\n      ",
    "\n\n         ",
    "- ",
    "\n- ",
    "\n* ",
    "\n1. ",
    "\n2) ",
    "\n> ",
    "\n>     ",
    "\n> - ",
    "\n# ",
    "\n---\n",
    "\n===\n",
    "\n***\n",
    "\n```\n",
    "\n```rust\n",
    "\n~~~ {.rust}\n",
    "- ```should_panic\n",
    "\n  ```\n",
    "`",
    "``",
    "```",
    "*",
    "**",
    "_",
    "__",
    "~",
    "~~",
    "[",
    "]",
    "[]",
    "][",
    "](",
    "](http://x.org)",
    "]: ",
    "[^1]",
    "[^1]: ",
    "![",
    "<",
    ">",
    "<b>",
    "</b>",
    "<!--",
    "-->",
    "<pre>",
    "<?",
    "http://x.org/",
    "\\",
    "&amp;",
    "| ",
    "\n|--|--|\n",
    "<https://x.org>",
    "[ ] ",
];

fn options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_SMART_PUNCTUATION
}

/// Quick ones, so more than is usual.
const CASES: u32 = 5000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn no_code_is_run_no_link_is_broken_and_no_word_is_lost(
        pieces in prop::collection::vec(0..PIECES.len(), 1..40),
    ) {
        let mut words = Vec::new();
        let mut comment = String::new();
        for piece in pieces {
            if PIECES[piece] == "word" {
                words.push(format!("w{}w", words.len()));
                comment.push_str(&words[words.len() - 1]);
            } else {
                comment.push_str(PIECES[piece]);
            }
        }
        // Rustdoc takes off what all lines are indented by.
        let lines = for_rustdoc(&without_margin(&comment));
        let indent = |line: &String| line.len() - line.trim_start().len();
        let margin = lines.iter().filter(|line| !line.is_empty()).map(indent).min();
        prop_assert!(margin.is_none_or(|margin| margin == 1));
        let lines: Vec<_> = lines.iter().map(|line| line.get(1..).unwrap_or_default()).collect();
        let text = lines.join("\n");

        let mut is_broken = false;
        let mut shown = String::new();
        let found = |_: pulldown_cmark::BrokenLink<'_>| {
            is_broken = true;
            None
        };
        for event in Parser::new_with_broken_link_callback(&text, options(), Some(found)) {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    prop_assert_eq!(&*info, "text");
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => {
                    prop_assert!(false, "code without a fence: {}", text);
                }
                Event::Html(_) | Event::InlineHtml(_) => {
                    prop_assert!(false, "HTML: {}", text);
                }
                Event::Start(Tag::Link { dest_url, title, .. }) => {
                    shown.push_str(&dest_url);
                    shown.push_str(&title);
                }
                Event::Text(text) | Event::Code(text) => shown.push_str(&text),
                _ => shown.push(' '),
            }
        }
        prop_assert!(!is_broken, "a broken link: {}", text);
        // The info string of a fence says how the code is to be shown, and is no text.
        let behind_fences = comment.split("```").skip(1).chain(comment.split("~~~").skip(1));
        let infos: String = behind_fences.filter_map(|part| part.lines().next()).collect();
        for word in words.iter().filter(|word| !infos.contains(*word)) {
            prop_assert!(shown.contains(word.as_str()), "{} is lost: {}", word, text);
        }
    }
}
