//! One top-level folder with an AppSpec file becomes the root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use codedeploy_agent::revision::archive::flatten_single_folder;

use super::bundle::picture;

const APPSPEC: [&str; 2] = ["appspec.yml", "appspec.yaml"];

fn tree(paths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    folder
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    picture(folder.path())
        .into_keys()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_only_folder_becomes_the_root() {
    let plain = &[
        "app-abc/appspec.yml",
        "app-abc/scripts/start.sh",
        "app-abc/.hidden",
    ][..];
    let called_alike = &["app-abc/app-abc/deep", "app-abc/.emptied"][..];
    for paths in [plain.to_vec(), [plain, called_alike].concat()] {
        let folder = tree(&paths);
        let app = folder.path().join("app-abc");
        symlink("/nowhere", app.join("link")).unwrap();
        fs::set_permissions(app.join("scripts"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(&app, fs::Permissions::from_mode(0o555)).unwrap();
        let before = picture(&app);
        assert!(flatten_single_folder(folder.path(), &APPSPEC).unwrap());
        assert_eq!(picture(folder.path()), before);
        assert!(!flatten_single_folder(folder.path(), &APPSPEC).unwrap());
        fs::set_permissions(
            folder.path().join("scripts"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
    }
}

#[test]
fn anything_else_stays_as_it_is() {
    for paths in [
        &["appspec.yml", "scripts/appspec.yml"][..],
        &["app/appspec.yml", "other/file"],
        &["app/deeper/appspec.yml"],
        &["app/readme"],
        &["appspec.yml"],
        &[],
    ] {
        let folder = tree(paths);
        let before = names(&folder);
        assert!(
            !flatten_single_folder(folder.path(), &APPSPEC).unwrap(),
            "{paths:?}"
        );
        assert_eq!(names(&folder), before);
    }
}

#[test]
fn a_link_to_a_folder_is_not_that_folder() {
    let outside = tree(&["appspec.yml"]);
    let folder = tree(&[]);
    symlink(outside.path(), folder.path().join("app")).unwrap();
    assert!(!flatten_single_folder(folder.path(), &APPSPEC).unwrap());
    assert_eq!(names(&outside), ["appspec.yml"]);
}
