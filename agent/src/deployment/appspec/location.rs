//! The place of a revision's AppSpec file, and advice if it is not there.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::AppSpecError;
use crate::spec::parse::APPSPEC_FILENAMES;

/// The names of the AppSpec file, in order of search.
pub(in crate::deployment) fn file_names(named: &str) -> Vec<String> {
    let fallbacks = APPSPEC_FILENAMES
        .iter()
        .rev()
        .filter(|name| **name != named);
    std::iter::once(named)
        .chain(fallbacks.copied())
        .map(str::to_owned)
        .collect()
}

/// Returns the AppSpec file of the revision in `archive`: the named one, else one with a usual
/// name.
pub(in crate::deployment) fn find(archive: &Path, named: &str) -> Result<PathBuf, AppSpecError> {
    let exists = |path: &PathBuf| path.symlink_metadata().is_ok();
    file_names(named)
        .iter()
        .map(|name| archive.join(name))
        .find(exists)
        .ok_or_else(|| AppSpecError::Missing {
            path: archive.join(named),
            elsewhere: where_it_belongs(archive, named),
        })
}

/// The number of names of a revision that are searched for a misplaced AppSpec file, and the depth
/// of the search.
const MAX_LOOKED_AT: usize = 10_000;
const MAX_DEPTH: usize = 5;

/// Returns advice if `archive` has no AppSpec file at its root: about one with another name or in a
/// folder below, for example when a folder was bundled instead of its contents together with
/// something else (`__MACOSX`).
pub(crate) fn where_it_belongs(archive: &Path, named: &str) -> String {
    let rule = "it belongs at the root of the bundle";
    let Some(found) = elsewhere(archive, named) else {
        return rule.to_owned();
    };
    match found
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        None => format!("{rule}, and this bundle has {found:?}: rename it to {named}"),
        Some(folder)
            if found.file_name().is_some_and(|name| {
                file_names(named).iter().any(|known| name == known.as_str())
            }) =>
        {
            format!(
                "{rule}, and this bundle has {found:?}: pack what is in {folder:?}, and nothing beside it"
            )
        }
        Some(_) => format!("{rule}, and this bundle has {found:?}: put it there as {named}"),
    }
}

/// Returns the path in `archive` of the likely AppSpec file, the nearest to the root.
fn elsewhere(archive: &Path, named: &str) -> Option<PathBuf> {
    let mut folders = VecDeque::from([PathBuf::new()]);
    let mut looked_at = 0;
    while let Some(folder) = folders.pop_front() {
        let mut entries: Vec<_> = std::fs::read_dir(archive.join(&folder))
            .ok()?
            .filter_map(Result::ok)
            .collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_folder && is_like_appspec(&entry.file_name().to_string_lossy(), named) {
                return Some(path);
            }
            looked_at += 1;
            if looked_at > MAX_LOOKED_AT {
                return None;
            }
            if is_folder && path.components().count() <= MAX_DEPTH {
                folders.push_back(path);
            }
        }
    }
    None
}

/// Whether a file's name resembles that of an AppSpec file, with another spelling or ending.
fn is_like_appspec(name: &str, named: &str) -> bool {
    let plain: String = name
        .to_lowercase()
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .collect();
    let stem = plain.split('.').next().unwrap_or_default();
    name.eq_ignore_ascii_case(named) || (stem == "appspec" && plain != "appspec")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_names_are_tried_when_the_named_file_is_missing() {
        let archive = tempfile::tempdir().unwrap();
        let missing = find(archive.path(), "deploy/app.yml")
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("deploy/app.yml does not exist"),
            "{missing}"
        );
        std::fs::write(archive.path().join("appspec.yml"), "").unwrap();
        assert_eq!(
            find(archive.path(), "deploy/app.yml").unwrap(),
            archive.path().join("appspec.yml")
        );
        std::fs::write(archive.path().join("appspec.yaml"), "").unwrap();
        assert_eq!(
            find(archive.path(), "deploy/app.yml").unwrap(),
            archive.path().join("appspec.yaml")
        );
    }

    #[test]
    fn a_missing_file_is_looked_for_one_folder_deeper() {
        let archive = tempfile::tempdir().unwrap();
        let message = |named| find(archive.path(), named).unwrap_err().to_string();
        std::fs::create_dir(archive.path().join("__MACOSX")).unwrap();
        std::fs::create_dir(archive.path().join("my app")).unwrap();
        assert!(message("appspec.yml").ends_with("it belongs at the root of the bundle"));
        std::fs::write(archive.path().join("my app/appspec.yml"), "").unwrap();
        for named in ["appspec.yml", "deploy.yml"] {
            let message = message(named);
            assert!(
                message.contains(r#"this bundle has "my app/appspec.yml": "#),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_in_a_wrong_place_or_with_a_wrong_name_is_named() {
        for (found, hint) in [
            (
                "AppSpec.yml",
                r#"has "AppSpec.yml": rename it to appspec.yml"#,
            ),
            ("appspec.yml.txt", r#"has "appspec.yml.txt": rename"#),
            ("appspec.json", r#"has "appspec.json": rename"#),
            ("app-spec.yml", r#"has "app-spec.yml": rename"#),
            (
                "deploy/linux/appspec.yml",
                r#"has "deploy/linux/appspec.yml": pack what is in "deploy/linux", and nothing beside"#,
            ),
            (
                "deploy/AppSpec.yaml",
                r#"has "deploy/AppSpec.yaml": put it there as appspec.yml"#,
            ),
        ] {
            let archive = tempfile::tempdir().unwrap();
            let path = archive.path().join(found);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::create_dir(archive.path().join("appspec")).unwrap();
            std::fs::write(path, "").unwrap();
            let message = find(archive.path(), "appspec.yml").unwrap_err().to_string();
            assert!(message.contains(hint), "{message}");
        }
    }
}
