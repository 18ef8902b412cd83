//! Attributes that a build script adds to generated items.

use proc_macro2::TokenStream;

use crate::Error;

/// Attributes by the pattern of the names they are for.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<(String, TokenStream)>);

impl Attributes {
    /// Parses `attribute`, or notes in `error` what is wrong with it. The first error stays.
    pub(crate) fn add(
        &mut self,
        option: &'static str,
        pattern: &str,
        attribute: &str,
        error: &mut Option<Error>,
    ) {
        match attribute.parse() {
            Ok(tokens) if attribute.trim_start().starts_with("#[") => {
                self.0.push((pattern.to_owned(), tokens));
            }
            _ => {
                error.get_or_insert_with(|| Error::Option {
                    option,
                    expected: "an attribute such as `#[cfg(feature = \"x\")]`",
                    value: attribute.to_owned(),
                });
            }
        }
    }

    /// All attributes for a name such as `package.Service`, in the order they were added.
    pub(crate) fn of(&self, name: &str) -> TokenStream {
        let fitting = self.0.iter().filter(|(pattern, _)| matches(pattern, name));
        fitting.map(|(_, tokens)| tokens.clone()).collect()
    }
}

/// Whether `pattern` means the item `name`: `.` means every item, `.a.b` the item or package `a.b`
/// and all in it, `b.C` every item whose name ends so.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let rest = match pattern.strip_prefix('.') {
        Some("") => return true,
        Some(start) => name
            .strip_prefix(start)
            .map(|rest| rest.is_empty() || rest.starts_with('.')),
        None => name
            .strip_suffix(pattern)
            .map(|rest| rest.is_empty() || rest.ends_with('.')),
    };
    !pattern.is_empty() && rest == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_matches_every_name() {
        assert!(matches(".", "a.b.C"));
        assert!(matches(".", ""));
    }

    #[test]
    fn leading_dot_matches_whole_segments_from_the_start() {
        assert!(matches(".a.b", "a.b.C"));
        assert!(matches(".a.b", "a.b"));
        assert!(!matches(".a.b", "a.bc"));
        assert!(!matches(".b", "a.b"));
    }

    #[test]
    fn no_leading_dot_matches_whole_segments_at_the_end() {
        assert!(matches("b.C", "a.b.C"));
        assert!(matches("C", "C"));
        assert!(!matches("C", "a.bC"));
        assert!(!matches("", "a"));
    }
}
