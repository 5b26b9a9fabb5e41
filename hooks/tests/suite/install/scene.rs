//! A host with an earlier version, and a second version that creates, replaces, removes and links
//! files, and changes modes, owners and access control lists. The scene can be reset.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec::{Acl, AclEntry, AclTag, AppSpec, Mode, Principal};

use super::bed::{Bed, Tree, chmod, link, tree, write};

pub(crate) struct Scene {
    pub(crate) bed: Bed,
    /// The tree before and after the second version.
    pub(crate) old: Tree,
    pub(crate) new: Tree,
    /// A copy of the initial state.
    template: PathBuf,
}

/// In nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// The folders that an Install changes; it only reads the revision.
const CHANGED: [&str; 3] = ["host", "records", "deployments"];

impl Scene {
    pub(crate) fn new() -> Self {
        let mut bed = Bed::in_memory();
        first_version(&mut bed);
        let template = bed.root.path().join("template");
        std::fs::create_dir(&template).unwrap();
        for name in CHANGED {
            copy(&bed.root.path().join(name), &template);
        }
        let mut scene = Self {
            bed,
            old: Tree::new(),
            new: Tree::new(),
            template,
        };
        scene.old = scene.seen();
        scene.bed.install(&second_version(&scene.bed)).unwrap();
        scene.new = scene.seen();
        assert_ne!(scene.old, scene.new);
        scene.reset();
        assert_eq!(scene.seen(), scene.old);
        scene
    }

    pub(crate) fn reset(&self) {
        for name in CHANGED {
            let path = self.bed.root.path().join(name);
            std::fs::remove_dir_all(&path).unwrap();
            copy(&self.template.join(name), self.bed.root.path());
        }
    }

    /// The host and the records; the records are rewritten, so their times do not count.
    pub(crate) fn seen(&self) -> Tree {
        let mut tree = self.bed.tree();
        for (path, seen) in &mut tree {
            if path.starts_with("records") {
                seen.modified = None;
            }
        }
        tree
    }

    /// The differences to `expected`, in short.
    pub(crate) fn differences(&self, expected: &Tree) -> Vec<String> {
        let seen = self.seen();
        let paths: std::collections::BTreeSet<_> = seen.keys().chain(expected.keys()).collect();
        let differing = paths
            .into_iter()
            .filter(|path| seen.get(*path) != expected.get(*path));
        differing
            .map(|path| {
                format!(
                    "{path:?}: {:?}, not {:?}",
                    seen.get(path),
                    expected.get(path)
                )
            })
            .collect()
    }

    /// Checks that no temporary name is left.
    pub(crate) fn assert_clean(&self) {
        for name in ["host", "records"] {
            for path in tree(&self.bed.root.path().join(name)).into_keys() {
                let name = path.file_name().unwrap_or_default().to_str().unwrap();
                assert!(
                    !name.starts_with(".codedeploy-") && !name.contains("journal"),
                    "{path:?} is left"
                );
            }
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "nothing copies a tree as faithfully as cp"
)]
fn copy(from: &Path, to: &Path) {
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

/// Waits until the files are older than the steps of the kernel's clock: an Install waits for the
/// next step if they are not, so that its system calls would differ from run to run.
pub(crate) fn settle(bed: &Bed) {
    let files = ["app/same", "app/steady/same"].map(|name| bed.host(name));
    let changed = files.iter().filter_map(|file| std::fs::metadata(file).ok());
    let changed =
        changed.map(|file| i128::from(file.ctime()) * SECOND + i128::from(file.ctime_nsec()));
    let newest = changed.max().unwrap_or_default();
    let now = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_nanos()
            .cast_signed()
    };
    while now() <= newest + SECOND / 50 {
        std::thread::yield_now();
    }
}

fn first_version(bed: &mut Bed) {
    bed.behavior = FileExistsBehavior::Overwrite;
    bed.deployment = "d-1".into();
    let files = [
        ("a", "1"),
        ("gone/x/y", "1"),
        ("remade/x", "1"),
        ("kind", "1"),
        ("mode", "1"),
        ("same", "as before"),
        ("steady/same", "as before"),
        ("steady/changes", "1"),
        ("steady/goes", "1"),
    ];
    bed.revision(&files);
    link("a", &bed.archive("link"));
    bed.install_all("app").unwrap();
    write(&bed.host("app/config"), "operator's");
    chmod(&bed.host("app/config"), 0o600);
    write(&bed.host("etc/exact"), "operator's");
    bed.deployment = "d-2".into();
    std::fs::create_dir_all(bed.deployment()).unwrap();
    bed.revision(&[
        ("a", "2"),
        ("config", "2"),
        ("new/x", "2"),
        ("remade/x", "2"),
        ("kind/x", "2"),
        ("mode", "2"),
        ("same", "as before"),
        ("steady/same", "as before"),
        ("steady/changes", "2"),
    ]);
    chmod(&bed.archive("mode"), 0o750);
    link("config", &bed.archive("link"));
}

/// Installs the second version over the first.
pub(crate) fn second_version(bed: &Bed) -> AppSpec {
    let mut appspec = bed.all_to("app");
    let mut exact = bed.permission("etc/exact");
    exact.mode = Mode::new(0o640);
    let mut listed = bed.permission("app/a");
    listed.acl = Some(Acl {
        entries: vec![AclEntry {
            default: false,
            tag: AclTag::User(Principal::Id(4321)),
            perms: 6,
        }],
    });
    if nix::unistd::geteuid().is_root() {
        exact.owner = Some(Principal::Id(1234));
        listed.group = Some(Principal::Id(2345));
    }
    appspec.permissions.extend([exact, listed]);
    appspec
}
