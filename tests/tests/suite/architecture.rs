//! The layout of the code: the imports of each file, computed from the source. Imports point
//! downwards; files that import each other in a cycle are one file in disguise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Each crate and each test program: the folder of its source, and its root file.
const SOURCES: [(&str, &str); 14] = [
    ("agent/src", "lib"),
    ("agent/tests/suite", "main"),
    ("hooks/src", "lib"),
    ("hooks/tests/suite", "main"),
    ("controller/src", "lib"),
    ("controller/tests/simulation", "main"),
    ("controller/tests/suite", "main"),
    ("controller/planner/src", "lib"),
    ("controller/planner/tests/suite", "main"),
    ("api/src", "lib"),
    ("support/src", "lib"),
    ("packaging/manual/src", "main"),
    ("tests/src", "lib"),
    ("tests/tests/suite", "main"),
];

/// The controller's layers from the top. Modules of one layer do not import each other.
const LAYERS: [&[&str]; 20] = [
    &["cli"],
    &["server"],
    &["console"],
    &["http"],
    &[
        "alarms",
        "events",
        "pruning",
        "reconcile",
        "traces",
        "traffic",
    ],
    &["service"],
    &["signals", "tasks", "tls", "web_identity"],
    &["deployment"],
    &["registry"],
    &["records"],
    &["transaction"],
    &["config"],
    &["request"],
    &["client", "options"],
    &[
        "credentials",
        "fleet",
        "identity",
        "objects",
        "outgoing",
        "pagination",
        "signing",
    ],
    &["ids", "revision"],
    &["vault"],
    &["error", "keys"],
    &["store"],
    &[
        "logging",
        "metrics",
        "new_file",
        "privileges",
        "recent",
        "s3_document",
        "signature",
        "words",
    ],
];

/// A module's path below its crate, such as `["script", "process"]`; the crate's root is empty.
type Module = Vec<String>;

/// The imports of each file of a crate from the same crate.
#[derive(Debug, Default)]
struct Imports {
    of: BTreeMap<Module, BTreeSet<Module>>,
}

impl Imports {
    fn of(folder: &str, root: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(folder);
        let mut files = BTreeMap::new();
        collect(&source, root, &mut Vec::new(), &mut files);
        assert!(
            files.contains_key(&Module::new()),
            "{folder} has no {root}.rs"
        );
        let modules: BTreeSet<Module> = files.keys().cloned().collect();
        let of = files.into_iter().map(|(module, file)| {
            let text = std::fs::read_to_string(&file).unwrap();
            let syntax = syn::parse_file(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let mut reader = Reader {
                modules: &modules,
                module: &module,
                depth: 0,
                found: BTreeSet::new(),
            };
            reader.visit_file(&syntax);
            let found = reader
                .found
                .into_iter()
                .filter(|found| !is_above(found, &module));
            (module.clone(), found.collect())
        });
        Self { of: of.collect() }
    }

    /// The cycles of more than `most` files, each sorted.
    fn circles(&self, most: usize) -> Vec<Vec<String>> {
        let mut left: BTreeSet<&Module> = self.of.keys().collect();
        let mut circles = Vec::new();
        while let Some(module) = left.pop_first() {
            let below = self.reached_from(module);
            let circle: BTreeSet<&Module> = below
                .iter()
                .copied()
                .filter(|other| self.reached_from(other).contains(module))
                .collect();
            for other in &circle {
                left.remove(other);
            }
            if circle.len() > most {
                circles.push(circle.into_iter().map(|module| module.join("::")).collect());
            }
        }
        circles
    }

    fn reached_from(&self, module: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = vec![module];
        while let Some(module) = next.pop() {
            for imported in self.of.get(module).into_iter().flatten() {
                if reached.insert(imported) {
                    next.push(imported);
                }
            }
        }
        reached
    }
}

/// Whether a module is the other one or contains it: a child may use its parent's items.
fn is_above(module: &Module, of: &Module) -> bool {
    of.starts_with(module)
}

fn collect(folder: &Path, root: &str, path: &mut Module, files: &mut BTreeMap<Module, PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_stem().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() {
            path.push(name);
            collect(&entry, root, path, files);
            path.pop();
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let is_root = path.is_empty() && name == root;
            // A program beside a library is a crate of its own.
            if name == "main" && !is_root {
                continue;
            }
            let module = path
                .iter()
                .cloned()
                .chain((!is_root).then_some(name))
                .collect();
            files.insert(module, entry);
        }
    }
}

/// Finds the paths in a file that lead to other files of its crate.
struct Reader<'a> {
    modules: &'a BTreeSet<Module>,
    module: &'a Module,
    /// The depth of inline modules around the present position.
    depth: usize,
    found: BTreeSet<Module>,
}

impl Reader<'_> {
    fn take(&mut self, segments: &[String]) {
        let mut place: Module = self.module.clone();
        let mut rest = segments;
        let mut out = self.depth;
        match segments.first().map(String::as_str) {
            Some("crate") => {
                place.clear();
                rest = &segments[1..];
            }
            Some("self" | "super") => {}
            // A child of this file; other names belong to other crates, or are items.
            Some(name) => {
                let mut child = place.clone();
                child.push(name.to_owned());
                if self.depth > 0 || !self.modules.contains(&child) {
                    return;
                }
            }
            None => return,
        }
        while let Some(name @ ("self" | "super")) = rest.first().map(String::as_str) {
            if name == "super" && out > 0 {
                out -= 1;
            } else if name == "super" {
                place.pop();
            }
            rest = &rest[1..];
        }
        for name in rest {
            place.push(name.clone());
            if !self.modules.iter().any(|module| module.starts_with(&place)) {
                place.pop();
                break;
            }
        }
        self.found.insert(place);
    }

    fn take_tree(&mut self, tree: &syn::UseTree, path: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.take_tree(&part.tree, path);
                path.pop();
            }
            syn::UseTree::Name(name) => {
                path.push(name.ident.to_string());
                self.take(path);
                path.pop();
            }
            syn::UseTree::Rename(name) => {
                path.push(name.ident.to_string());
                self.take(path);
                path.pop();
            }
            syn::UseTree::Glob(_) => self.take(path),
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.take_tree(item, path);
                }
            }
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let says_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    };
    attributes.iter().any(says_test)
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() && !is_test(&item.attrs) {
            self.depth += 1;
            syn::visit::visit_item_mod(self, item);
            self.depth -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.take_tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            let segments: Vec<String> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            self.take(&segments);
        }
        syn::visit::visit_path(self, path);
    }
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let mut said = String::new();
    for (folder, root) in SOURCES {
        for circle in Imports::of(folder, root).circles(2) {
            writeln!(said, "{folder}: {}", circle.join(", ")).unwrap();
        }
    }
    assert!(
        said.is_empty(),
        "these files import each other in a circle:\n{said}"
    );
}

#[test]
fn imports_of_the_controller_run_downwards() {
    let layer = |module: &Module| {
        let name = module.first()?;
        let found = LAYERS
            .iter()
            .position(|layer| layer.contains(&name.as_str()));
        Some(found.unwrap_or_else(|| {
            panic!("the module {name} of the controller has no layer; give it one")
        }))
    };
    let mut said = String::new();
    for (module, imported) in &Imports::of("controller/src", "lib").of {
        for other in imported
            .iter()
            .filter(|other| other.first() != module.first())
        {
            if let (Some(from), Some(to)) = (layer(module), layer(other))
                && from >= to
            {
                writeln!(said, "{} imports {}", module.join("::"), other.join("::")).unwrap();
            }
        }
    }
    assert!(
        said.is_empty(),
        "these imports of the controller do not run downwards:\n{said}"
    );
}

/// The places of the controller's code outside of the store that `is_wrong` finds fault with.
fn wrong_outside_the_store(is_wrong: impl Fn(&str) -> bool) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/src");
    let mut files = BTreeMap::new();
    collect(&source, "lib", &mut Vec::new(), &mut files);
    let mut said = String::new();
    for (_, file) in files
        .iter()
        .filter(|(module, _)| module.first().is_none_or(|name| name != "store"))
    {
        let text = std::fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| is_wrong(line)) {
            writeln!(said, "{}:{}: {}", file.display(), number + 1, line.trim()).unwrap();
        }
    }
    said
}

#[test]
fn the_library_of_the_database_is_named_in_the_store_alone() {
    let said = wrong_outside_the_store(|line| line.contains("rusqlite"));
    assert!(
        said.is_empty(),
        "use the store's own Tx, Row and values instead:\n{said}"
    );
}

#[test]
fn statements_are_standard_sql() {
    /// SQL that only one engine understands, or that one engine understands in its own way.
    const OF_ONE_ENGINE: [&str; 14] = [
        "INDEXED BY",
        "INSERT OR ",
        "REPLACE INTO",
        "ON CONFLICT DO UPDATE",
        "rowid",
        "last_insert_",
        "PRAGMA",
        "json_",
        "->>",
        "-> '$",
        "group_concat",
        "iif(",
        "unixepoch",
        "strftime",
    ];
    // Values are compared by IS DISTINCT FROM; IS is for NULL.
    let compares_by_is = |line: &str| {
        line.match_indices(" IS ").any(|(at, is)| {
            let rest = &line[at + is.len()..];
            let rest = rest.strip_prefix("NOT ").unwrap_or(rest);
            !["NULL", "DISTINCT FROM"]
                .iter()
                .any(|right| rest.starts_with(right))
        })
    };
    let said = wrong_outside_the_store(|line| {
        OF_ONE_ENGINE.iter().any(|wrong| line.contains(wrong)) || compares_by_is(line)
    });
    assert!(
        said.is_empty(),
        "write these statements so that every engine reads them:\n{said}"
    );
}
