//! Makes the text of a comment harmless as Markdown, without losing any of it.

use super::edit::apply;
use super::faults;

/// More rounds than a comment needs: one repair can bring to light what it had hidden.
const MAX_ROUNDS: usize = 30;

/// The lines of a comment as rustdoc may see them: parsed as rustdoc does, they hold no code that
/// it would run, no link that it would miss, and no HTML.
pub(super) fn for_rustdoc(comment: &str) -> Vec<String> {
    let mut text = comment.to_owned();
    for _ in 0..MAX_ROUNDS {
        let edits = faults::repairs(&text);
        if edits.is_empty() {
            return lines(&text);
        }
        text = apply(&text, edits);
    }
    lines(&verbatim(comment))
}

/// The comment as it is, as a block of code that is no Rust.
fn verbatim(comment: &str) -> String {
    let longest = comment.split(|c| c != '`').map(str::len).max();
    let fence = "`".repeat(longest.unwrap_or(0).max(2) + 1);
    format!("{fence}text\n{comment}\n{fence}")
}

/// Lines with the blank that sets them off from `///`.
fn lines(text: &str) -> Vec<String> {
    let line = |line: &str| match line.trim_end() {
        "" => String::new(),
        line => format!(" {line}"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustdoc(comment: &str) -> String {
        let lines = for_rustdoc(comment);
        let lines: Vec<_> = lines
            .iter()
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        lines.join("\n")
    }

    #[track_caller]
    fn assert_stays(comment: &str) {
        assert_eq!(rustdoc(comment), comment);
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        assert_stays("First line.\n  continued deeper\n\nSecond.\n- item\n  more");
        assert_stays("# Title\n\n> A *quote* of __two words__ and `code`.\n\n1. One\n2. Two");
        assert_stays("| a | b |\n|---|---|\n| 1 | 2 |");
        assert_stays("[0, 9) and a < b, x->y, 3 * 4 * 5");
        assert_stays("");
    }

    #[test]
    fn code_by_indentation_gets_a_fence() {
        for (comment, expected) in [
            (
                "Example:\n\n    let x = 1;\n\n    f(x);\nDone.",
                "Example:\n\n```text\n    let x = 1;\n\n    f(x);\n```\nDone.",
            ),
            ("    f(x);\n\nDone.", "```text\n    f(x);\n```\n\nDone."),
            ("# Title\n    f(x);", "# Title\n```text\n    f(x);\n```"),
            (
                "Title\n===\n    f(x);",
                "Title\n===\n```text\n    f(x);\n```",
            ),
            ("***\n    f(x);", "***\n```text\n    f(x);\n```"),
            (
                "-     f(x);\n      g(x);",
                "- ```text\n      f(x);\n      g(x);\n  ```",
            ),
            (
                "- a\n\n      f(x);\n- b",
                "- a\n\n  ```text\n      f(x);\n  ```\n- b",
            ),
            (">     f(x);\n> b", "> ```text\n>     f(x);\n> ```\n> b"),
            (
                "1. a\n   > b\n   >\n   >     f(x);",
                "1. a\n   > b\n   >\n   > ```text\n   >     f(x);\n   > ```",
            ),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
    }

    #[test]
    fn paragraphs_of_a_list_item_are_not_code() {
        assert_stays("1. First\n\n   still first\n\nText");
    }

    #[test]
    fn every_fence_becomes_text_whatever_it_says() {
        for info in [
            "",
            "rust",
            "rust,no_run",
            "rust,editable",
            "{.rust}",
            "compile_fail,E0277",
            "json",
            " ignore-x86 ",
            "text,rust",
        ] {
            let comment = format!("```{info}\nx\n```\ny");
            assert_eq!(rustdoc(&comment), "```text\nx\n```\ny", "{info}");
        }
        for (comment, expected) in [
            ("~~~~\nx\n~~~~", "~~~~text\nx\n~~~~"),
            ("- ```rust\n  x\n  ```", "- ```text\n  x\n  ```"),
            ("1) - ```\n     x", "1) - ```text\n     x"),
            ("> ```\n> x\n> ```", "> ```text\n> x\n> ```"),
            ("```\nnever closed", "```text\nnever closed"),
            (
                "a\n```\nb\n```\n    c",
                "a\n```text\nb\n```\n```text\n    c\n```",
            ),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
    }

    #[test]
    fn html_is_shown_as_it_is_written() {
        for (comment, expected) in [
            ("Vec<T> or `Vec<T>`", "Vec\\<T> or `Vec<T>`"),
            ("<b>bold, <unknown/>", "\\<b>bold, \\<unknown/>"),
            ("<!-- a\n\n    b -->", "\\<!-- a\n\n```text\n    b -->\n```"),
            ("<pre>\nx\n</pre>", "\\<pre>\nx\n\\</pre>"),
            (
                "a `span that\ngoes <T> on` and <U>",
                "a `span that\ngoes <T> on` and \\<U>",
            ),
            ("``a `b <T>`` and <U>", "``a `b <T>`` and \\<U>"),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
    }

    #[test]
    fn brackets_that_are_no_links_are_escaped_once() {
        for (comment, expected) in [
            (
                "[a] [b], `x[0] [y]`, \\[c\\]",
                "\\[a] \\[b], `x[0] [y]`, \\[c\\]",
            ),
            ("arr[i][j]", "arr\\[i]\\[j]"),
            ("[a][], [`b`], ![c]", "\\[a][], \\[`b`], !\\[c]"),
            (
                "[a](b) and [c](Some::path)",
                "\\[a](b) and \\[c](Some::path)",
            ),
            ("a [^1] b\n\n[^1]: note", "a \\[^1] b\n\n\\[^1]: note"),
            ("[a]: http://x.org/a\nb", "\\[a]: <http://x.org/a>\nb"),
            ("<std:vector>", "\\<std:vector>"),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
        assert_stays("[a](https://x.org/b_c) ![d](http://x.org/e.png) <https://x.org> <a@b.org>");
        assert_stays("See [a] and [b][a].\n\n[a]: https://x.org/a");
    }

    #[test]
    fn references_to_protobuf_names_show_the_name() {
        for (comment, expected) in [
            ("[Get][a.b.Get]", "a.b.Get"),
            ("[`A.name`][v1.A.name]", "`v1.A.name`"),
            ("[an item][v1.Item]", "an item (v1.Item)"),
            ("[a_b_][v1.Item_]", "a_b_ (v1.Item_)"),
            ("arr[i][j.k]", "arr\\[i]\\[j.k]"),
            ("[x][y]", "\\[x]\\[y]"),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
    }

    #[test]
    fn addresses_become_links_without_what_follows_them() {
        for (comment, expected) in [
            ("See http://x.org/a, or", "See <http://x.org/a>, or"),
            ("(https://x.org/a_b_c).", "(<https://x.org/a_b_c>)."),
            ("\"https://x.org\"", "\"<https://x.org>\""),
            ("https://x.org/a_(b)", "<https://x.org/a_(b)>"),
            ("https://x.org/?a=1&b=2!", "<https://x.org/?a=1&b=2>!"),
            ("ftp://x.org `http://x.org`", "ftp://x.org `http://x.org`"),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
    }

    #[test]
    fn characters_that_only_look_like_markup_are_escaped() {
        for (comment, expected) in [
            ("projects/*/locations/*", "projects/\\*/locations/\\*"),
            ("a*b*c", "a\\*b\\*c"),
            ("__init__", "\\_\\_init\\_\\_"),
            ("> 5\n\nmust be\n>= 5", "> 5\n\nmust be\n\\>= 5"),
            ("about ~5~ of", "about \\~5\\~ of"),
            ("a lone ` here", "a lone \\` here"),
        ] {
            assert_eq!(rustdoc(comment), expected);
        }
    }

    #[test]
    fn what_cannot_be_repaired_is_shown_verbatim() {
        assert_eq!(verbatim("a\n```` b"), "`````text\na\n```` b\n`````");
    }
}
