//! Schemas with random changes: an error or code, and never a panic.
//!
//! `PROPTEST_CASES` says how many are tried.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    fs,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use common::Folder;
use homa_rpc_build::{Error, FileDescriptorSet, configure};
use proptest::{prelude::*, sample::Index};

/// Schemas to begin with, by the names by which they import one another.
const SEEDS: [&str; 12] = [
    "features/common/types.proto",
    "features/service.proto",
    "harmless/comments.proto",
    "harmless/lints.proto",
    "harmless/names.proto",
    "names/keywords.proto",
    "names/prelude.proto",
    "names/services.proto",
    "no_package.proto",
    "strict/common/units.proto",
    "strict/v1/item.proto",
    "strict/v1/store.proto",
];

/// What is put into them.
const WORDS: [&str; 74] = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    ";",
    ",",
    "=",
    ".",
    "-",
    "+",
    ":",
    "/",
    "\"",
    "'",
    "//",
    "/*",
    "*/",
    "\n",
    "\r",
    "\0",
    "\u{feff}",
    "\u{202e}",
    "é",
    "`",
    "```rust\n",
    "message",
    "enum",
    "service",
    "rpc",
    "returns",
    "stream",
    "oneof",
    "map",
    "map<string, ",
    "group",
    "extend",
    "extensions",
    "reserved",
    "to",
    "max",
    "option",
    "optional",
    "repeated",
    "required",
    "import",
    "public",
    "package",
    "syntax",
    "edition",
    "default",
    "deprecated",
    "inf",
    "nan",
    "0",
    "1",
    "-1",
    "0x7fffffff",
    "99999999999999999999",
    "1e999",
    "_",
    "__",
    "_9",
    "self",
    "Self",
    "type",
    "Clone",
    "google.protobuf.Any",
    ".google.protobuf.FieldOptions",
    "a.b.c",
    "\"./x.proto\"",
];

/// A change of one piece of the text.
#[derive(Clone, Debug)]
enum Change {
    Remove(Index),
    Repeat(Index, Index),
    Swap(Index, Index),
    Put(Index, Index),
    Replace(Index, Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Change::Remove),
        (index(), index()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (index(), index()).prop_map(|(a, b)| Change::Swap(a, b)),
        (index(), index()).prop_map(|(at, word)| Change::Put(at, word)),
        (index(), index()).prop_map(|(at, word)| Change::Replace(at, word)),
        index().prop_map(Change::Cut),
    ]
}

/// Words, signs and blanks.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (piece, behind) = rest.split_at(end);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn mutate(text: &str, changes: &[Change]) -> String {
    let mut pieces = pieces(text);
    for change in changes {
        let len = pieces.len();
        if len == 0 {
            break;
        }
        match change {
            Change::Remove(at) => drop(pieces.remove(at.index(len))),
            Change::Repeat(from, to) => pieces.insert(to.index(len), pieces[from.index(len)]),
            Change::Swap(a, b) => pieces.swap(a.index(len), b.index(len)),
            Change::Put(at, word) => pieces.insert(at.index(len), WORDS[word.index(WORDS.len())]),
            Change::Replace(at, word) => pieces[at.index(len)] = WORDS[word.index(WORDS.len())],
            Change::Cut(at) => pieces.truncate(at.index(len).max(len / 2)),
        }
    }
    pieces.concat()
}

fn seeds() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    let read = |name: &&str| fs::read_to_string(folder.join(name)).unwrap();
    SEEDS.iter().map(read).collect()
}

/// Code that was not made, or is none, is a fault of the generator and not of the schema.
fn assert_understood(result: Result<(), Error>) {
    if let Err(error @ (Error::Generate(_) | Error::NotRust { .. } | Error::Write { .. })) = result
    {
        panic!("{error}");
    }
}

static CASE: AtomicU32 = AtomicU32::new(0);

proptest! {
    #[test]
    fn files_are_compiled_or_refused(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let seeds = seeds();
        let mutated = mutate(&seeds[seed], &changes);
        let case = CASE.fetch_add(1, Ordering::Relaxed).to_string();
        let mut folder = Folder::new("mutated", &case);
        for (name, text) in SEEDS.iter().zip(&seeds) {
            folder = folder.file(name, text);
        }
        let folder = folder.file(SEEDS[seed], &mutated);
        let set = |builder: homa_rpc_build::Builder| builder.include_file("all.rs");
        let result = folder.compile_with(&[SEEDS[seed]], set);
        fs::remove_dir_all(&folder.path).unwrap();
        assert_understood(result);
    }

    /// Descriptors of other programs can hold anything at all.
    #[test]
    fn descriptors_are_built_or_refused(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
    ) {
        static DESCRIPTORS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let all = DESCRIPTORS.get_or_init(|| (0..SEEDS.len()).map(descriptors).collect());
        let mut bytes = all[seed].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(set) = <FileDescriptorSet as prost_reflect::prost::Message>::decode(bytes.as_slice()) else {
            return Ok(());
        };
        let case = CASE.fetch_add(1, Ordering::Relaxed).to_string();
        let folder = Folder::new("mutated_sets", &case);
        let result = configure().out_dir(folder.path.join("out")).compile_fds(set);
        fs::remove_dir_all(&folder.path).unwrap();
        if !matches!(result, Err(Error::Write { .. })) {
            assert_understood(result);
        }
    }
}

/// The encoded descriptors of a seed and of what it imports.
fn descriptors(seed: usize) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    let case = CASE.fetch_add(1, Ordering::Relaxed).to_string();
    let out = Folder::new("descriptors", &case);
    let set = out.path.join("set.bin");
    configure()
        .emit_rerun_if_changed(false)
        .out_dir(out.path.join("out"))
        .file_descriptor_set_path(&set)
        .compile_protos(&[folder.join(SEEDS[seed])], &[folder])
        .unwrap();
    let bytes = fs::read(set).unwrap();
    fs::remove_dir_all(out.path).unwrap();
    bytes
}
