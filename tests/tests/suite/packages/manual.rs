//! The manual pages and shell completions that packages contain.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use codedeploy_tests::programs::Program;

/// Writes them into a folder.
async fn manual() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = Program::built("manual").output([folder.path()]).await;
    assert!(output.status.success(), "{}", said(&output));
    folder
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

async fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    Program::at(program).output(arguments).await
}

/// The commands of all programs, as the snapshots of their help show them.
fn commands() -> BTreeSet<String> {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/snapshots");
    let texts = files(&snapshots)
        .into_iter()
        .map(|file| fs::read_to_string(file).unwrap());
    let mut commands = BTreeSet::new();
    for text in texts {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("$ codedeploy-"));
        let words = lines.filter_map(|line| line.strip_suffix(" --help"));
        commands.extend(words.map(|words| format!("codedeploy-{}", words.replace(' ', "-"))));
    }
    commands
}

#[tokio::test]
async fn every_command_has_a_page_without_errors() {
    let folder = manual().await;
    let mut pages = BTreeSet::new();
    for section in ["1", "8"] {
        for page in files(&folder.path().join(format!("man/man{section}"))) {
            let lint = ["-T", "lint", "-W", "error"].map(OsStr::new);
            let output = run("mandoc", lint.into_iter().chain([page.as_os_str()])).await;
            assert!(
                output.status.success(),
                "{}: {}",
                page.display(),
                said(&output)
            );
            let shown =
                said(&run("mandoc", ["-T".as_ref(), "utf8".as_ref(), page.as_os_str()]).await);
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
                assert!(
                    unstruck(&shown).lines().any(|line| line == heading),
                    "{}: no {heading}:\n{shown}",
                    page.display()
                );
            }
            let name = page.file_stem().unwrap().to_str().unwrap().to_owned();
            assert_eq!(page.extension(), Some(OsStr::new(section)));
            assert!(pages.insert(name), "{}: twice", page.display());
        }
    }
    assert_eq!(pages, commands());
    assert!(folder.path().join("man/man1/codedeploy-local.1").exists());
    assert!(folder.path().join("man/man8/codedeploy-agent.8").exists());
}

/// The text without the backspaces that print a character twice.
fn unstruck(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        if character == '\u{8}' {
            plain.pop();
        } else {
            plain.push(character);
        }
    }
    plain
}

#[tokio::test]
async fn bash_completes_commands_and_options() {
    let folder = manual().await;
    for file in files(&folder.path().join("completions/bash")) {
        let output = run("bash", ["-n".as_ref(), file.as_os_str()]).await;
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output), "", "{}", file.display());
    }
    let complete = async |words: &[&str]| {
        let (program, last) = (words[0], words[words.len() - 1]);
        let file = folder.path().join("completions/bash").join(program);
        let before = words[words.len() - 2];
        let script = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={}; set -- $(complete -p {program}); \
             while [ \"$1\" != -F ]; do shift; done; \
             \"$2\" {program} '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            words.join(" "),
            words.len() - 1,
        );
        let output = run("bash", ["-c", &script]).await;
        said(&output).trim().to_owned()
    };
    assert_eq!(complete(&["codedeploy-agent", "sta"]).await, "start status");
    assert_eq!(
        complete(&["codedeploy-agent", "stop", "--fo"]).await,
        "--force"
    );
    assert_eq!(complete(&["codedeploy-local", "val"]).await, "validate");
    assert_eq!(
        complete(&["codedeploy-controller", "host", "re"]).await,
        "remove"
    );
}

#[tokio::test]
async fn every_shell_has_a_file_for_every_program() {
    let folder = manual().await;
    for program in [
        "codedeploy-agent",
        "codedeploy-local",
        "codedeploy-controller",
    ] {
        for file in [
            format!("bash/{program}"),
            format!("zsh/_{program}"),
            format!("fish/{program}.fish"),
        ] {
            let text = fs::read_to_string(folder.path().join("completions").join(&file)).unwrap();
            assert!(text.contains(program), "{file}");
        }
    }
}
