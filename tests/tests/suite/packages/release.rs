//! A release: checksums, their signature, bills of materials, the wheel; and what its programs may ask of a system.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use codedeploy_tests::programs::programs_folder;
use tempfile::TempDir;

use crate::pages::repository;

/// The name that the kernel and packages have for this machine's architecture.
const MACHINE: &str = std::env::consts::ARCH;

/// Programs that ask for glibc 2.2.5 or 2.17 only, which no compiler on a newer system makes of a whole program.
pub(crate) fn old_programs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join(MACHINE);
    std::fs::create_dir(&programs).unwrap();
    let source = folder.path().join("source.c");
    std::fs::write(
        &source,
        "#include <unistd.h>\nvoid _start(void) { write(1, \"it runs\\n\", 8); _exit(0); }\n",
    )
    .unwrap();
    for name in ["codedeploy-agent", "codedeploy-controller"] {
        run(Command::new("cc")
            .args(["-nostartfiles", "-s", "-o"])
            .arg(programs.join(name))
            .arg(&source));
    }
    folder
}

/// Runs a command that must succeed; returns what it prints.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy);
    assert!(output.status.success(), "{command:?}: {said:?}");
    said[0].trim().to_owned()
}

/// Releases programs that are there already, without the image.
fn release(programs: &Path, output: &Path, options: &[&str]) -> Output {
    Command::new(repository().join("packaging/release"))
        .args(["--no-image", "--target", MACHINE, "--binaries"])
        .arg(programs)
        .arg("--output")
        .arg(output)
        .args(options)
        .output()
        .unwrap()
}

fn find(folder: &Path, start: &str, end: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(start) && name.ends_with(end)
        })
        .unwrap_or_else(|| panic!("{start}…{end} in {}", folder.display()))
}

#[test]
fn a_release_can_be_verified_and_names_what_is_in_it() {
    let programs = old_programs();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    run(Command::new("minisign")
        .args(["-G", "-W", "-s"])
        .arg(&key)
        .arg("-p")
        .arg(folder.path().join("public")));
    let dist = folder.path().join("dist");
    let output = release(
        programs.path(),
        &dist,
        &["--minisign-key", &key.display().to_string()],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");

    run(Command::new("minisign")
        .args(["-V", "-m", "SHA256SUMS", "-p", "../public"])
        .current_dir(&dist));
    let checked = run(Command::new("sha256sum")
        .args(["--check", "SHA256SUMS"])
        .current_dir(&dist));
    // Two programs as deb, rpm, archive and bill of materials, and the wheel.
    assert_eq!(checked.lines().count(), 9, "{checked}");

    let text = std::fs::read(find(&dist, "codedeploy-agent", "cdx.json")).unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let components = bill["components"].as_array().unwrap();
    let linked = |name: &str| components.iter().find(|entry| entry["name"] == name);
    let rustls = linked("rustls").unwrap();
    assert!(
        rustls["purl"]
            .as_str()
            .unwrap()
            .starts_with("pkg:cargo/rustls@")
    );
    assert_eq!(rustls["hashes"][0]["content"].as_str().unwrap().len(), 64);
    assert!(linked("proptest").is_none(), "a crate for tests");

    let venv = folder.path().join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--no-index"])
        .arg(find(&dist, "codedeploy_local", "whl")));
    assert_eq!(
        run(&mut Command::new(venv.join("bin/codedeploy-local"))),
        "it runs"
    );
}

#[test]
fn a_release_again_gives_the_same_bytes() {
    let programs = old_programs();
    let folder = tempfile::tempdir().unwrap();
    let sums = ["first", "second"].map(|name| {
        let dist = folder.path().join(name);
        let output = release(programs.path(), &dist, &[]);
        assert!(output.status.success(), "{output:?}");
        std::fs::read_to_string(dist.join("SHA256SUMS")).unwrap()
    });
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn programs_that_need_a_later_c_library_are_not_released() {
    // The programs of the tests are linked with this machine's C library.
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(programs_folder(), folder.path().join(MACHINE)).unwrap();
    let output = release(folder.path(), &folder.path().join("dist"), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("codedeploy-agent needs glibc 2.") && said.contains("at most 2.17"),
        "{said}"
    );
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let programs = old_programs();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "").unwrap();
    let output = release(programs.path(), folder.path(), &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("has files that are not of a release"),
        "{said}"
    );
    assert!(folder.path().join("thesis.txt").exists());
}

/// The version of glibc that packages depend on is the newest one that a symbol of the program has.
#[test]
fn the_c_library_that_a_package_needs_is_the_one_of_its_newest_symbol() {
    let program = programs_folder().join("codedeploy-agent");
    let symbols = run(Command::new("objdump").arg("-T").arg(&program));
    let newest = symbols
        .split("GLIBC_2.")
        .skip(1)
        .filter_map(|rest| {
            rest.split([')', ' '])
                .next()?
                .split('.')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .max()
        .unwrap();
    let script = "import sys, elf; print(elf.libc(sys.argv[1])[1])";
    let found = run(Command::new("python3")
        .args(["-c", script])
        .arg(&program)
        .env("PYTHONPATH", repository().join("packaging/python")));
    assert_eq!(found, newest.to_string());
}

#[test]
fn a_release_names_the_commit_that_it_was_compiled_from() {
    let commit = |variable: Option<&str>| {
        let mut command = Command::new("python3");
        command
            .args(["-c", "import workspace; print(workspace.commit())"])
            .env("PYTHONPATH", repository().join("packaging/python"))
            .env_remove("CODEDEPLOY_COMMIT");
        run(command.envs(variable.map(|value| ("CODEDEPLOY_COMMIT", value))))
    };
    assert_eq!(commit(Some("1b303a1")), "1b303a1");
    if repository().join(".git").exists() {
        let head = run(Command::new("git")
            .args(["rev-parse", "--short=12", "HEAD"])
            .current_dir(repository()));
        let found = commit(None);
        assert_eq!(found.trim_end_matches("-modified"), head);
    }
    let built = repository()
        .join("target/release-cross")
        .join(format!("{MACHINE}-unknown-linux-gnu/dist/codedeploy-agent"));
    if built.exists() {
        let version = run(Command::new(built).arg("--version"));
        assert!(version.contains("(commit "), "{version}");
    }
}
