//! Makes the messages that prost-build generates acceptable to strict lints.
//!
//! They are brought in by `include!`, which allows no attributes for a whole file. So those lints
//! that the names and comments of a schema can offend are allowed for the items that may do so, and
//! for these only: most messages stay as they are.

use heck::ToSnakeCase as _;
use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens as _, quote};
use syn::{
    Attribute, Expr, Fields, Item, ItemEnum, ItemStruct, parse_quote, spanned::Spanned as _,
};

use crate::accessors::map_field;

/// Goes over all items in the module `parent`, if that is known, except for modules that allow what
/// they need themselves.
pub(crate) fn add(items: &mut [Item], parent: Option<&str>) {
    for item in items {
        match item {
            Item::Struct(item) => tidy_struct(item),
            Item::Enum(item) => tidy_enum(item),
            Item::Impl(item) if item.trait_.is_none() => {
                for item in &mut item.items {
                    if let syn::ImplItem::Fn(function) = item {
                        function.attrs.push(parse_quote!(#[must_use]));
                    }
                }
            }
            Item::Mod(module) if !allows_something(&module.attrs) => {
                let name = module.ident.to_string();
                if parent == Some(&name) {
                    allow(&mut module.attrs, &[quote!(clippy::module_inception)]);
                }
                if let Some((_, items)) = &mut module.content {
                    add(items, Some(&name));
                }
            }
            _ => {}
        }
    }
}

fn allows_something(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        matches!(attribute.style, syn::AttrStyle::Inner(_)) && attribute.path().is_ident("allow")
    })
}

fn tidy_struct(item: &mut ItemStruct) {
    item.fields.iter_mut().for_each(rename_map);
    let own_name = item.ident.to_string();
    let names: Vec<String> = item
        .fields
        .iter()
        .filter_map(|field| field.ident.as_ref())
        .map(|name| name.to_string().trim_start_matches("r#").to_owned())
        .collect();
    let is_bool = |field: &&syn::Field| field.ty.to_token_stream().to_string() == "bool";
    let bools = item.fields.iter().filter(is_bool).count();

    let mut lints = lints_of_docs(&docs(&item.attrs, &item.fields));
    if bools > 3 {
        lints.push(quote!(clippy::struct_excessive_bools));
    }
    if names.iter().any(|name| name.starts_with('_')) {
        lints.push(quote!(clippy::pub_underscore_fields));
    }
    if names.len() > 2 && look_alike(&names, &own_name.to_snake_case()) {
        lints.push(quote!(clippy::struct_field_names));
    }
    if item
        .fields
        .iter()
        .any(|field| mentions(&field.ty, &own_name))
    {
        lints.push(quote!(clippy::use_self));
    }
    allow(&mut item.attrs, &lints);
}

/// prost's derive panics at a map of enums with a keyword for a name.
fn rename_map(field: &mut syn::Field) {
    let is_map_of_enums = field.attrs.iter().any(|attribute| {
        let text = attribute.meta.to_token_stream().to_string();
        let is_map = ["prost (map =", "prost (btree_map ="]
            .iter()
            .any(|start| text.starts_with(start));
        is_map && text.contains("enumeration(")
    });
    if let Some(name) = field.ident.as_mut().filter(|_| is_map_of_enums) {
        *name = Ident::new(&map_field(&name.to_string()), name.span());
    }
}

fn tidy_enum(item: &mut ItemEnum) {
    for variant in &mut item.variants {
        if let Some((_, number)) = &mut variant.discriminant {
            group_digits(number);
        }
    }
    let names: Vec<String> = item.variants.iter().map(|v| v.ident.to_string()).collect();
    let mut all_docs = docs(&item.attrs, &Fields::Unit);
    for variant in &item.variants {
        all_docs.extend(docs(&variant.attrs, &Fields::Unit));
    }
    let holds_messages = item.variants.iter().any(|v| !v.fields.is_empty());

    let mut lints = lints_of_docs(&all_docs);
    if names.len() > 2 && look_alike(&names, &item.ident.to_string()) {
        lints.push(quote!(clippy::enum_variant_names));
    }
    if holds_messages && names.len() > 1 {
        lints.push(quote!(clippy::large_enum_variant));
    }
    allow(&mut item.attrs, &lints);
}

/// `1000000` to `1_000_000`, with its sign.
fn group_digits(number: &mut Expr) {
    match number {
        Expr::Unary(negative) => group_digits(&mut negative.expr),
        Expr::Lit(literal) => {
            let text = literal.to_token_stream().to_string();
            if text.len() > 5 && text.bytes().all(|byte| byte.is_ascii_digit()) {
                let mut grouped = String::new();
                for (index, digit) in text.char_indices() {
                    if index > 0 && (text.len() - index) % 3 == 0 {
                        grouped.push('_');
                    }
                    grouped.push(digit);
                }
                literal.lit = syn::Lit::Int(syn::LitInt::new(&grouped, literal.span()));
            }
        }
        _ => {}
    }
}

fn allow(attributes: &mut Vec<Attribute>, lints: &[TokenStream]) {
    if !lints.is_empty() {
        let reason = "generated from a schema, whose names and comments are not Rust";
        attributes.push(parse_quote!(#[allow(#(#lints,)* reason = #reason)]));
    }
}

/// Whether the names may seem to share a word, or to repeat the name of what they are in.
fn look_alike(names: &[String], own_name: &str) -> bool {
    let share = |letter: fn(&String) -> Option<char>| {
        let first = names.first().and_then(letter);
        names.iter().all(|name| letter(name) == first)
    };
    share(|name| name.chars().next())
        || share(|name| name.chars().next_back())
        || names
            .iter()
            .any(|name| name.starts_with(own_name) || name.ends_with(own_name))
}

fn mentions(kind: &syn::Type, name: &str) -> bool {
    let text = kind.to_token_stream().to_string();
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == name)
}

/// The lines of documentation of an item and its fields.
fn docs(attributes: &[Attribute], fields: &Fields) -> Vec<String> {
    let of_fields = fields.iter().flat_map(|field| &field.attrs);
    attributes
        .iter()
        .chain(of_fields)
        .filter_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// Lints about documentation that these lines may offend.
fn lints_of_docs(lines: &[String]) -> Vec<TokenStream> {
    let looks_like_code = |word: &str| {
        word.contains('_')
            || word.contains("::")
            || word.chars().skip(1).any(|c| c.is_ascii_uppercase())
    };
    let is_quoted = |line: &String| line.contains("['") || line.contains("[\"");
    let is_list = |line: &String| {
        let text = line.trim_start();
        text.starts_with(['-', '*', '+', '>']) || text.starts_with(|c: char| c.is_ascii_digit())
    };
    let mut lints = Vec::new();
    if lines
        .iter()
        .flat_map(|line| line.split_whitespace())
        .any(looks_like_code)
    {
        lints.push(quote!(clippy::doc_markdown));
    }
    if lines.iter().any(is_quoted) {
        lints.push(quote!(clippy::doc_link_with_quotes));
    }
    if lines.iter().any(is_list) {
        lints.push(quote!(clippy::doc_lazy_continuation));
        lints.push(quote!(clippy::doc_overindented_list_items));
    }
    lints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lints(code: &str) -> String {
        let mut file = syn::parse_file(code).unwrap();
        add(&mut file.items, Some("top"));
        let code = prettyplease::unparse(&file);
        let words = code.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c));
        let lints: Vec<_> = words.filter(|word| word.starts_with("clippy::")).collect();
        lints.join(" ")
    }

    #[test]
    fn plain_items_stay_as_they_are() {
        assert_eq!(
            lints("/// Who, and what.\npub struct A { /** One. */ pub name: u8 }"),
            ""
        );
        assert_eq!(lints("/// Kinds.\npub enum Kind { Red, Green, Blue }"), "");
    }

    #[test]
    fn comments_that_look_like_code_or_lists_are_allowed() {
        assert_eq!(
            lints("/// See HttpRule.\npub struct A {}"),
            "clippy::doc_markdown"
        );
        assert_eq!(
            lints("pub enum A { /** - one\n more */ B }"),
            "clippy::doc_lazy_continuation clippy::doc_overindented_list_items"
        );
    }

    #[test]
    fn names_and_shapes_of_schemas_are_allowed() {
        assert_eq!(
            lints("pub struct A { pub id_a: u8, pub id_b: u8, pub id_c: Vec<A> }"),
            "clippy::struct_field_names clippy::use_self"
        );
        assert_eq!(
            lints("pub struct A { pub x: bool, pub y: bool, pub z: bool, pub t: bool }"),
            "clippy::struct_excessive_bools"
        );
        assert_eq!(
            lints("pub enum A { OneFirst(u8), OneMore(u8), OneLast(u8) }"),
            "clippy::enum_variant_names clippy::large_enum_variant"
        );
    }

    #[test]
    fn modules_are_entered_unless_they_have_their_own_list() {
        let item = "/// A_b\npub struct A {}";
        assert_eq!(
            lints(&format!("mod m {{ {item} }}")),
            "clippy::doc_markdown"
        );
        assert_eq!(
            lints(&format!("mod m {{ #![allow(clippy::all)] {item} }}")),
            "clippy::all"
        );
    }
}
