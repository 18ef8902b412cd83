//! The modules of a crate use one another in one direction: no circles.
//!
//! At every level the parts of a module, each with all that is below it, must form an acyclic graph.
//! A module and its own children may use each other. Test code does not count. A name that a module
//! only re-exports counts as the module's that defines it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use homa_interop::skip;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

/// Circles that are there today, as the parts of one module. None may be added, and a part may go only.
const ALLOWED: &[(&str, &[&str])] = &[];

/// The names of a module from the root of its crate, which has none.
type Module = Vec<String>;

/// The modules of a crate.
#[derive(Default)]
struct Crate {
    files: BTreeMap<Module, File>,
}

/// What one file says.
#[derive(Default)]
struct File {
    /// Paths in it, from the root of the crate.
    paths: Vec<Module>,
    /// Names that it re-exports, and the paths they stand for.
    exports: BTreeMap<String, Module>,
    /// Modules all of whose names it re-exports.
    globs: Vec<Module>,
    /// Names that it defines itself.
    items: BTreeSet<String>,
    /// Modules that it declares for tests alone.
    tests: BTreeSet<String>,
}

impl Crate {
    fn read(src: &Path) -> Self {
        let mut read = Self::default();
        read.read_folder(src, &[]);
        let tests: Vec<Module> = read
            .files
            .iter()
            .flat_map(|(module, file)| file.tests.iter().map(|name| joined(module, name)))
            .collect();
        let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
        read.files.retain(|module, _| !is_test(module));
        read
    }

    fn read_folder(&mut self, folder: &Path, module: &[String]) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.is_dir() {
                self.read_folder(&path, &joined(module, name));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = match name {
                    "mod" | "lib" => module.to_vec(),
                    name => joined(module, name),
                };
                let source = fs::read_to_string(&path).unwrap();
                self.files
                    .insert(module.clone(), File::read(module, &source));
            }
        }
    }

    /// The module that defines what `path` leads to; `None` if that is of another crate.
    fn definer(&self, path: &[String], steps: usize) -> Option<Module> {
        let module = (0..=path.len())
            .rev()
            .map(|len| &path[..len])
            .find(|module| self.files.contains_key(*module))?;
        let file = &self.files[module];
        let Some(name) = path.get(module.len()) else {
            return Some(module.to_vec());
        };
        if steps == 0 || file.items.contains(name) {
            return Some(module.to_vec());
        }
        if let Some(target) = file.exports.get(name) {
            return self.definer(target, steps - 1);
        }
        // With one of them, as is usual, there is no doubt.
        let globs = file.globs.first();
        globs.map_or(Some(module.to_vec()), |glob| {
            self.definer(&joined(glob, name), steps - 1)
        })
    }

    /// Of each module, which of its parts use which others, with one example.
    fn arrows(&self) -> BTreeMap<Module, BTreeMap<(String, String), String>> {
        let mut levels: BTreeMap<Module, BTreeMap<_, _>> = BTreeMap::new();
        for (from, file) in &self.files {
            for path in &file.paths {
                let Some(to) = self.definer(path, 8) else {
                    continue;
                };
                let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(same), to.get(same)) {
                    let example = format!("{} uses {}", from.join("::"), path.join("::"));
                    let level = levels.entry(from[..same].to_vec()).or_default();
                    level.entry((a.clone(), b.clone())).or_insert(example);
                }
            }
        }
        levels
    }

    /// All circles: the module that has them, the parts in one, and the arrows between these.
    fn circles(&self) -> Vec<(String, BTreeSet<String>, String)> {
        let mut found = Vec::new();
        for (module, arrows) in self.arrows() {
            let reach = reachable(&arrows);
            let mut done = BTreeSet::new();
            for &part in reach.keys().filter(|part| reach[**part].contains(**part)) {
                let back = |other: &String| reach[other].contains(part);
                let circle: BTreeSet<String> = reach[part]
                    .iter()
                    .filter(|other| back(other))
                    .cloned()
                    .collect();
                if !done.insert(circle.clone()) {
                    continue;
                }
                let mut text = String::new();
                for ((a, b), example) in &arrows {
                    if circle.contains(a) && circle.contains(b) {
                        writeln!(text, "    {a} -> {b}: {example}").unwrap();
                    }
                }
                found.push((module.join("::"), circle, text));
            }
        }
        found
    }
}

/// What can be reached from each part, over any number of arrows.
fn reachable(arrows: &BTreeMap<(String, String), String>) -> BTreeMap<&String, BTreeSet<String>> {
    let mut reach: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        reach.entry(from).or_default().insert(to.clone());
        reach.entry(to).or_default();
    }
    loop {
        let before: usize = reach.values().map(BTreeSet::len).sum();
        for part in reach.keys().copied().collect::<Vec<_>>() {
            let next: Vec<String> = reach[part]
                .iter()
                .flat_map(|next| reach[next].clone())
                .collect();
            reach.entry(part).or_default().extend(next);
        }
        if reach.values().map(BTreeSet::len).sum::<usize>() == before {
            return reach;
        }
    }
}

fn joined(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

impl File {
    fn read(module: Module, source: &str) -> Self {
        let mut reader = Reader {
            module,
            file: Self::default(),
        };
        let parsed = syn::parse_file(source).unwrap();
        for item in &parsed.items {
            if let Some(name) = name_of(item) {
                reader.file.items.insert(name);
            }
        }
        reader.visit_file(&parsed);
        reader.file
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(
        match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Macro(item) => item.ident.as_ref()?,
            _ => return None,
        }
        .to_string(),
    )
}

/// Goes through a file.
struct Reader {
    /// Where it is, with the modules written inside of files.
    module: Module,
    file: File,
}

impl Reader {
    /// `path` from the root of the crate; `None` if it can be one of another crate.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        while let Some((first, behind)) = rest.split_first()
            && first == "super"
        {
            module.pop();
            rest = behind;
        }
        module.extend_from_slice(rest);
        Some(module)
    }

    fn add_use(&mut self, tree: &UseTree, mut path: Vec<String>, exported: bool) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.add_use(&part.tree, path, exported);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, path.clone(), exported);
                }
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                let known_as = match name.as_str() {
                    "self" => path.last().cloned().unwrap_or_default(),
                    _ => {
                        path.push(name.clone());
                        name
                    }
                };
                self.add_path(&path, exported.then_some(known_as));
            }
            UseTree::Rename(rename) => {
                path.push(rename.ident.to_string());
                self.add_path(&path, exported.then(|| rename.rename.to_string()));
            }
            UseTree::Glob(_) => {
                if let Some(path) = self.add_path(&path, None)
                    && exported
                {
                    self.file.globs.push(path);
                }
            }
        }
    }

    fn add_path(&mut self, path: &[String], exported_as: Option<String>) -> Option<Module> {
        // Without `crate` or the like it begins with a module of this one, or another crate.
        let absolute = self
            .absolute(path)
            .unwrap_or_else(|| [self.module.as_slice(), path].concat());
        if let Some(name) = exported_as {
            self.file.exports.insert(name, absolute.clone());
        }
        self.file.paths.push(absolute.clone());
        Some(absolute)
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = attribute.meta.require_list();
        attribute.path().is_ident("cfg")
            && condition.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        if is_for_tests(&module.attrs) {
            self.file.tests.insert(name);
            return;
        }
        self.module.push(name);
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            let exported = !matches!(item.vis, syn::Visibility::Inherited);
            self.add_use(&item.tree, Vec::new(), exported);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if let Some(path) = self.absolute(&names) {
            self.file.paths.push(path);
        }
        visit::visit_path(self, path);
    }
}

/// Fails on circles of a package that are not allowed.
fn assert_one_way(package: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let src = root.join(package).join("src");
    if !src.is_dir() {
        skip::report(
            "the arrows between modules",
            format_args!("no {}", src.display()),
        );
        return;
    }
    let read = Crate::read(&src);
    assert!(read.files.len() > 5, "{} files", read.files.len());
    let mut text = String::new();
    for (module, circle, arrows) in read.circles() {
        let place = format!("{package} {module}");
        let is_allowed = |(allowed, parts): &(&str, &[&str])| {
            *allowed == place.trim_end() && circle.iter().all(|part| parts.contains(&part.as_str()))
        };
        if !ALLOWED.iter().any(is_allowed) {
            writeln!(text, "{}: {circle:?}\n{arrows}", place.trim_end()).unwrap();
        }
    }
    assert!(
        text.is_empty(),
        "modules that use one another in a circle:\n{text}"
    );
}

#[test]
fn homa_rpc_has_no_circles() {
    assert_one_way("homa-rpc");
}

#[test]
fn homa_rpc_build_has_no_circles() {
    assert_one_way("homa-rpc-build");
}

#[test]
fn homa_protocol_has_no_circles() {
    assert_one_way("homa-transport/protocol");
}

#[test]
fn homa_sim_has_no_circles() {
    assert_one_way("homa-transport/sim");
}

#[test]
fn homa_transport_has_no_circles() {
    assert_one_way("homa-transport");
}

/// Who takes time, randomness and packets as arguments needs none of these.
#[test]
fn the_protocol_and_the_simulator_know_no_sockets_clocks_threads_or_async() {
    const FORBIDDEN: [&str; 9] = [
        "tokio",
        "socket2",
        "libc",
        "thread::spawn",
        "thread::sleep",
        "std::time::Instant",
        "SystemTime",
        "UdpSocket",
        "async fn",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for package in ["homa-transport/protocol", "homa-transport/sim"] {
        let src = root.join(package).join("src");
        if !src.is_dir() {
            skip::report(
                "what the protocol knows",
                format_args!("no {}", src.display()),
            );
            return;
        }
        for file in sources(&src) {
            let text = fs::read_to_string(&file).unwrap();
            let code = |line: &&str| !line.trim_start().starts_with("//");
            // Test modules stand at the end of a file.
            let text = text.split("\nmod tests {").next().unwrap();
            for line in text.lines().filter(code) {
                for word in FORBIDDEN {
                    assert!(!line.contains(word), "{}: {line}", file.display());
                }
            }
        }
    }
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_circle_is_found_through_re_exports_and_inline_paths_and_tests_do_not_count() {
    let files = [
        ("", "pub use a::Shown; mod a; mod b; mod c;"),
        ("a", "pub struct Shown; fn f() { crate::b::g(); }"),
        ("b", "use crate::Shown; pub fn g() {}"),
        (
            "c",
            "#[cfg(test)] mod tests { use crate::b; } pub fn h() {}",
        ),
    ];
    let mut read = Crate::default();
    for (name, source) in files {
        let module: Module = name.split_terminator("::").map(str::to_owned).collect();
        read.files
            .insert(module.clone(), File::read(module, source));
    }
    let circles = read.circles();
    assert_eq!(circles.len(), 1, "{circles:?}");
    assert_eq!(
        circles[0].1,
        BTreeSet::from(["a".to_owned(), "b".to_owned()])
    );
    // Without the inline path there is none.
    let leaf = File::read(vec!["a".to_owned()], "pub struct Shown;");
    read.files.insert(vec!["a".to_owned()], leaf);
    assert!(read.circles().is_empty());
}
