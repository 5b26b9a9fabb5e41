//! Random revisions, hosts and earlier Installs, compared with a naive model of the AppSpec's
//! guarantees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::install::InstallError;
use proptest::prelude::*;

use super::bed::{Bed, What, link, tree, write};

type Model = BTreeMap<PathBuf, What>;

/// Up to a dozen objects at short paths, so that trees collide; paths below anything but a folder
/// are dropped.
fn trees() -> impl Strategy<Value = Model> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let path =
        prop::collection::vec(name, 1..4).prop_map(|names| names.iter().collect::<PathBuf>());
    let what = prop_oneof![
        3 => "[0-9]{1,3}".prop_map(|text| What::File(text.into_bytes())),
        2 => Just(What::Folder),
        1 => Just(What::Link("/nowhere".into())),
    ];
    prop::collection::vec((path, what), 0..12).prop_map(|objects| {
        let mut tree = Model::new();
        for (path, what) in objects {
            let parents: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_path_buf).collect();
            let blocked = parents
                .iter()
                .any(|parent| !matches!(tree.get(parent), None | Some(What::Folder)));
            if blocked || tree.contains_key(&path) {
                continue;
            }
            for parent in parents.into_iter().filter(|parent| parent != Path::new("")) {
                tree.insert(parent, What::Folder);
            }
            tree.insert(path, what);
        }
        tree
    })
}

fn make(root: &Path, model: &Model) {
    for (path, what) in model {
        match what {
            What::File(text) => write(&root.join(path), std::str::from_utf8(text).unwrap()),
            What::Folder => std::fs::create_dir_all(root.join(path)).unwrap(),
            What::Link(target) => link(target.to_str().unwrap(), &root.join(path)),
        }
    }
}

fn seen(root: &Path) -> Model {
    let tree = tree(root)
        .into_iter()
        .filter(|(path, _)| path != Path::new(""));
    tree.map(|(path, seen)| (path, seen.what)).collect()
}

/// The expected host afterwards, and the objects that the next Install may remove; `None` for a
/// conflict.
fn expected(
    revision: &Model,
    host: &Model,
    cleanup: &[PathBuf],
    behavior: FileExistsBehavior,
) -> Option<(Model, Vec<PathBuf>)> {
    let mut host = host.clone();
    for path in cleanup.iter().rev() {
        let has_children = host
            .keys()
            .any(|other| other != path && other.starts_with(path));
        if !has_children {
            host.remove(path);
        }
    }
    let mut created = Vec::new();
    for (path, what) in revision {
        match (host.get(path), what) {
            (None, _) => {}
            (Some(What::Folder), What::Folder) => continue,
            (_, What::Folder) => return None,
            (Some(there), _) => match behavior {
                FileExistsBehavior::Retain => continue,
                FileExistsBehavior::Overwrite if *there != What::Folder => {}
                FileExistsBehavior::Disallow | FileExistsBehavior::Overwrite => return None,
            },
        }
        host.insert(path.clone(), what.clone());
        created.push(path.clone());
    }
    Some((host, created))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_install_is_what_the_model_says_or_changes_nothing(
        revision in trees(),
        host in trees(),
        listed in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..16),
        behavior in prop::sample::select(vec![
            FileExistsBehavior::Disallow, FileExistsBehavior::Overwrite, FileExistsBehavior::Retain,
        ]),
    ) {
        let mut bed = Bed::new();
        bed.behavior = behavior;
        bed.revision(&[]);
        make(&bed.archive(""), &revision);
        make(&bed.host(""), &host);
        let names: Vec<&PathBuf> = host.keys().collect();
        let mut cleanup = Vec::new();
        for (index, gone) in listed {
            match (gone, names.is_empty()) {
                (false, false) => cleanup.push(index.get(&names).to_path_buf()),
                _ => cleanup.push(PathBuf::from("b/gone")),
            }
        }
        let lines: String = cleanup.iter().map(|path| format!("{}\n", bed.host("").join(path).display())).collect();
        write(&bed.records.cleanup, &lines);
        let before = bed.tree();
        let result = bed.install_all("");
        match expected(&revision, &host, &cleanup, behavior) {
            None => {
                prop_assert!(matches!(result, Err(InstallError::Conflicts(_))), "{result:?}");
                prop_assert_eq!(bed.tree(), before);
            }
            Some((model, created)) => {
                prop_assert!(result.is_ok(), "{result:?}");
                prop_assert_eq!(seen(&bed.host("")), model);
                let created: Vec<String> = created.iter().map(|path| path.display().to_string()).collect();
                prop_assert_eq!(bed.cleanup(), created);
            }
        }
    }
}
