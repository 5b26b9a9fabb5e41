//! The pages of this project, and their shell lines, taken literally.

use std::path::{Path, PathBuf};

/// The checkout that this test was built from.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the checkout is there")
}

pub(crate) fn read(page: &Path) -> String {
    let path = repository().join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The shell lines of a page below a heading, down to the next one of that level or a higher one.
pub(crate) fn recipes(page: &str, heading: &str) -> String {
    let text = read(Path::new(page));
    let level = heading.chars().take_while(|mark| *mark == '#').count();
    let is_end = |line: &str| {
        let marks = line.chars().take_while(|mark| *mark == '#').count();
        (1..=level).contains(&marks) && line.as_bytes().get(marks) == Some(&b' ')
    };
    let mut shell = String::new();
    let (mut in_block, mut in_shell) = (false, false);
    for line in text.lines().skip_while(|line| *line != heading).skip(1) {
        if line.starts_with("```") {
            (in_block, in_shell) = (!in_block, !in_block && line == "```sh");
        } else if !in_block && is_end(line) {
            break;
        } else if in_shell {
            shell.push_str(line);
            shell.push('\n');
        }
    }
    assert!(!shell.is_empty(), "{page} has no recipe below {heading:?}");
    shell
}

/// The same without the lines that build or download programs: a test has these already.
pub(crate) fn without_installations(recipes: &str) -> String {
    let installs = |line: &&str| {
        line.starts_with("cargo install --locked ") || line.starts_with("python3 -m venv ")
    };
    let (installations, others): (Vec<&str>, Vec<&str>) = recipes.lines().partition(installs);
    assert!(
        !installations.is_empty(),
        "no line installs anything:\n{recipes}"
    );
    others.join("\n")
}
