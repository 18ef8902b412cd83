//! What a build script gives to options: attributes for items, and paths that select items.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, parse::Parser as _};

use crate::Error;

/// Attributes by the path of the items they are for.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<(String, TokenStream)>);

impl Attributes {
    /// Adds what [`parse`] made of an attribute.
    pub(crate) fn add(&mut self, path: &str, attribute: TokenStream) {
        self.0.push((path.to_owned(), attribute));
    }

    /// All attributes for a name such as `package.Service`, in the order they were added.
    pub(crate) fn of(&self, name: &str) -> TokenStream {
        let fitting = self.0.iter().filter(|(path, _)| matches(path, name));
        fitting.map(|(_, tokens)| tokens.clone()).collect()
    }
}

/// One or more attributes, such as `#[derive(Eq)]`.
pub(crate) fn parse(option: &'static str, text: &str) -> Result<TokenStream, Error> {
    match Attribute::parse_outer.parse_str(text) {
        Ok(attributes) if !attributes.is_empty() => Ok(quote!(#(#attributes)*)),
        _ => Err(Error::Option {
            option,
            expected: "an attribute such as `#[cfg(feature = \"x\")]`",
            value: text.to_owned(),
        }),
    }
}

/// A path to a Rust type, without parameters.
pub(crate) fn parse_type_path(option: &'static str, text: &str) -> Result<TokenStream, Error> {
    match syn::parse_str::<syn::Path>(text) {
        Ok(path) => Ok(quote!(#path)),
        Err(_) => Err(Error::Option {
            option,
            expected: "a path to a type",
            value: text.to_owned(),
        }),
    }
}

/// Checks a path that selects items of protobuf.
pub(crate) fn check_path(option: &'static str, path: &str) -> Result<(), Error> {
    let names = path.strip_prefix('.').unwrap_or(path);
    if path == "." || names.split('.').all(is_identifier) {
        return Ok(());
    }
    Err(Error::Option {
        option,
        expected: "`.`, or names joined by dots such as `.package.Message` or `Message.field`",
        value: path.to_owned(),
    })
}

/// Whether `name` is an identifier of protobuf.
pub(crate) fn is_identifier(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// Whether `path` means the item `name`: `.` means every item, `.a.b` the item or package `a.b`
/// and all in it, `b.C` every item with that end of its name.
pub(crate) fn matches(path: &str, name: &str) -> bool {
    let rest = match path.strip_prefix('.') {
        Some("") => return true,
        Some(start) => name
            .strip_prefix(start)
            .map(|rest| rest.is_empty() || rest.starts_with('.')),
        None => name
            .strip_suffix(path)
            .map(|rest| rest.is_empty() || rest.ends_with('.')),
    };
    !path.is_empty() && rest == Some(true)
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

    #[test]
    fn several_attributes_and_doc_comments_are_attributes() {
        let text = "#[derive(Eq)]\n/// Text.\n#[cfg(x)]";
        assert_eq!(
            parse("o", text).unwrap().to_string(),
            "# [derive (Eq)] # [doc = \" Text.\"] # [cfg (x)]"
        );
    }

    #[test]
    fn what_is_not_an_attribute_is_refused() {
        for text in [
            "",
            "derive(Eq)",
            "#[derive(Eq)",
            "#[a] b",
            "#![a]",
            "\"",
            "// a",
        ] {
            assert!(parse("o", text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_checked() {
        for path in [".", ".a", "a", ".a.b_1.C", "C.field"] {
            assert!(check_path("o", path).is_ok(), "{path}");
        }
        for path in ["", "..", "a.", ".a..b", "a b", "a::B", "1a", "é"] {
            assert!(check_path("o", path).is_err(), "{path}");
        }
    }
}
