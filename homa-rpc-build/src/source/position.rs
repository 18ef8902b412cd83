//! Lines and columns.

/// Line and column, both from 1, of what follows `text`.
pub(super) fn after(text: &str) -> (usize, usize) {
    let line = text.matches('\n').count() + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}

/// Line and column, from 1, of `edition` if that is the first word of the file.
pub(super) fn of_edition(source: &str) -> Option<(usize, usize)> {
    let mut rest = source.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n')?.1.trim_start();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1.trim_start();
        } else {
            break;
        }
    }
    let word = rest.strip_prefix("edition")?;
    word.trim_start().strip_prefix('=')?;
    Some(after(source.strip_suffix(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edition_is_found_behind_comments() {
        let source = "// a\n/* edition = \"2023\"; */\n  edition = \"2023\";\n";
        assert_eq!(of_edition(source), Some((3, 3)));
    }

    #[test]
    fn edition_elsewhere_is_not_taken_for_the_declaration() {
        assert_eq!(of_edition("syntax = \"proto3\"; // edition = 1"), None);
        assert_eq!(of_edition("editions = \"x\";"), None);
        assert_eq!(of_edition("// edition = \"2023\";"), None);
        assert_eq!(of_edition(""), None);
    }

    #[test]
    fn position_after_text_counts_lines_and_characters_from_one() {
        assert_eq!(after(""), (1, 1));
        assert_eq!(after("ab\nü"), (2, 2));
        assert_eq!(after("ab\n"), (2, 1));
    }
}
