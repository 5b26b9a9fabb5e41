//! The pages agree with the checkout: their links resolve, the site has all of them, and the files
//! that they name exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::pages::{read, repository};

/// The pages of the site, below `docs`.
fn site() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["", "agent/", "controller/"] {
        for entry in std::fs::read_dir(repository().join("docs").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") && name != "SUMMARY.md" {
                found.insert(format!("{folder}{name}"));
            }
        }
    }
    found
}

/// The links of a page to other files, with the fragment that each names.
fn links(text: &str) -> Vec<(&str, &str)> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let here =
        targets.filter(|target| !target.contains("://") && !target.contains(char::is_whitespace));
    here.map(|target| target.split_once('#').unwrap_or((target, "")))
        .collect()
}

/// The fragment of a link to a heading.
fn fragment(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(
        |c: char| !c.is_alphanumeric() && c != ' ' && c != '-' && c != '_',
        "",
    );
    kept.trim().replace(' ', "-")
}

/// The reason why a link does not resolve; `None` if it does.
fn broken(page: &Path, path: &str, wanted: &str) -> Option<String> {
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        page.parent().unwrap().join(path)
    };
    let is_picture = target.extension().is_some_and(|kind| kind == "png") && target.is_file();
    if target.is_dir() || is_picture {
        return None;
    }
    let Ok(found) = std::fs::read_to_string(&target) else {
        return Some(format!("{}: {path} does not exist", page.display()));
    };
    let headings = found.lines().filter(|line| line.starts_with('#'));
    let mut fragments = headings.map(|heading| fragment(heading.trim_start_matches('#')));
    let leads = wanted.is_empty() || fragments.any(|fragment| fragment == wanted);
    (!leads).then(|| format!("{}: {path} has no heading for #{wanted}", page.display()))
}

#[test]
fn links_between_documents_lead_somewhere() {
    let pages = [
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "docs/SUMMARY.md",
    ]
    .map(PathBuf::from);
    let pages = pages
        .into_iter()
        .chain(site().into_iter().map(|page| Path::new("docs").join(page)));
    let mut nowhere = Vec::new();
    for page in pages {
        let text = read(&page);
        let page = repository().join(page);
        nowhere.extend(
            links(&text)
                .into_iter()
                .filter_map(|(path, wanted)| broken(&page, path, wanted)),
        );
    }
    assert!(
        nowhere.is_empty(),
        "these links lead nowhere:\n{}",
        nowhere.join("\n")
    );
}

#[test]
fn links_of_the_site_stay_in_it() {
    let docs = repository().join("docs");
    for page in site() {
        let text = read(&Path::new("docs").join(&page));
        let folder = docs.join(&page).parent().unwrap().to_owned();
        for (path, _) in links(&text)
            .into_iter()
            .filter(|(path, _)| !path.is_empty())
        {
            let target = folder.join(path).canonicalize().unwrap_or_default();
            assert!(
                target.starts_with(&docs) && target.is_file(),
                "docs/{page} links to {path}, which the site does not have"
            );
        }
    }
}

#[test]
fn the_summary_lists_every_page_once() {
    let summary = read(Path::new("docs/SUMMARY.md"));
    let listed: Vec<&str> = links(&summary).into_iter().map(|(path, _)| path).collect();
    let distinct: BTreeSet<String> = listed.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(
        distinct.len(),
        listed.len(),
        "a page is listed twice: {listed:?}"
    );
    assert_eq!(
        distinct,
        site(),
        "docs/SUMMARY.md and the pages in docs differ"
    );
}

#[test]
fn the_files_that_developers_are_pointed_to_exist() {
    let text = read(Path::new("docs/design.md"));
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('/') && !word.contains(' '))
        .collect();
    assert!(named.len() >= 20, "{named:?}");
    let missing: Vec<&str> = named
        .into_iter()
        .filter(|path| !repository().join(path).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "docs/design.md names files that are not there: {missing:?}"
    );
}

#[test]
fn the_readme_asks_for_the_compiler_that_the_workspace_needs() {
    let manifest = read(Path::new("Cargo.toml"));
    let version = manifest
        .split("rust-version = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let readme = read(Path::new("README.md"));
    assert!(
        readme.contains(&format!("Rust {version} or later")),
        "README.md does not say Rust {version}"
    );
}
