//! The contents of the packages: every format has the same files, and packing again gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::release::run;
use crate::pages::repository;

/// The folder of the alert rules and dashboards.
const MONITORING: &str = "/usr/share/codedeploy-controller";

/// Any small program will do for what these tests look at.
fn small_programs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["codedeploy-agent", "codedeploy-controller"] {
        std::fs::copy("/bin/true", folder.path().join(name)).unwrap();
    }
    folder
}

fn package(programs: &Path, output: &Path) -> Command {
    let mut command = Command::new(repository().join("packaging/package"));
    command
        .arg("--binaries")
        .arg(programs)
        .arg("--output")
        .arg(output);
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

/// Packs small programs, and returns the packages by their names.
fn packages(folder: &Path, options: &[&str]) -> BTreeMap<String, PathBuf> {
    let programs = small_programs();
    run(package(programs.path(), folder).args(options))
        .lines()
        .map(|line| {
            let path = PathBuf::from(line);
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect()
}

fn one<'a>(packages: &'a BTreeMap<String, PathBuf>, start: &str, end: &str) -> &'a Path {
    packages
        .iter()
        .find(|(name, _)| name.starts_with(start) && name.ends_with(end))
        .unwrap_or_else(|| panic!("{start}…{end} in {packages:?}"))
        .1
}

/// Paths of files and links, with what formats name differently left out.
fn files<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    lines
        .filter(|line| {
            !line.ends_with('/')
                && !line.contains("/lintian/")
                && !line.contains("changelog.Debian")
        })
        .map(|line| {
            let line = line
                .trim_start_matches('.')
                .replacen("/usr/lib/systemd", "/lib/systemd", 1);
            line.replacen("/etc/systemd", "/lib/systemd", 1)
        })
        .collect()
}

#[test]
fn every_format_has_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let packages = packages(folder.path(), &[]);
    for name in ["codedeploy-agent", "codedeploy-controller"] {
        let deb = run(Command::new("sh").args([
            "-c",
            "dpkg-deb --fsys-tarfile \"$1\" | tar --list",
            "sh",
            &one(&packages, name, "deb").display().to_string(),
        ]));
        let rpm = run(Command::new("rpm")
            .args([
                "--query",
                "--package",
                "--queryformat",
                "[%{FILEMODES:perms} %{FILENAMES}\n]",
            ])
            .arg(one(&packages, name, "rpm")));
        let archive = run(Command::new("tar")
            .arg("--list")
            .arg("--file")
            .arg(one(&packages, name, "tar.gz")));
        let deb = files(deb.lines());
        let rpm = rpm.lines().filter(|line| !line.starts_with('d'));
        let rpm = files(
            rpm.filter_map(|line| line.split_once(' '))
                .map(|(_, path)| path),
        );
        let archive = files(
            archive
                .lines()
                .filter_map(|line| line.split_once("/files"))
                .map(|(_, path)| path),
        );
        assert_eq!(deb, rpm);
        assert_eq!(deb, archive);
        assert!(
            deb.contains(&format!("/lib/systemd/system/{name}.service")),
            "{deb:?}"
        );
        assert!(deb.contains(&format!("/usr/bin/{name}")), "{deb:?}");
        assert!(
            deb.contains(&format!("/usr/share/doc/{name}/THIRD-PARTY-NOTICES")),
            "{deb:?}"
        );
    }
}

#[test]
fn the_controllers_package_has_the_alert_rules_and_dashboards_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let packages = packages(folder.path(), &["--format", "deb"]);
    let unpacked = folder.path().join("unpacked");
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(one(&packages, "codedeploy-controller", "deb"))
        .arg(&unpacked));
    run(Command::new("diff")
        .arg("--recursive")
        .arg(repository().join("packaging/monitoring"))
        .arg(format!("{}{MONITORING}/monitoring", unpacked.display())));
}

#[test]
fn packing_again_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["first", "second"].map(|name| {
        let made = packages(&folder.path().join(name), &[]);
        made.into_iter()
            .map(|(name, path)| (name, std::fs::read(path).unwrap()))
            .collect::<BTreeMap<_, _>>()
    });
    assert_eq!(made[0].len(), 6, "{:?}", made[0].keys());
    for (name, bytes) in &made[0] {
        assert!(*bytes == made[1][name], "{name} differs");
    }
}

#[test]
fn lintian_and_rpmlint_find_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let packages = packages(folder.path(), &["--format", "deb", "--format", "rpm"]);
    for (name, path) in packages {
        if name.ends_with("deb") {
            run(Command::new("lintian")
                .args(["--fail-on", "error", "--allow-root"])
                .arg(path));
        } else {
            run(Command::new("rpmlint")
                .arg("--config")
                .arg(repository().join("packaging/rpmlint.toml"))
                .arg(path));
        }
    }
}

#[test]
fn generated_pages_and_completions_go_to_the_package_of_their_program() {
    let folder = tempfile::tempdir().unwrap();
    let generated = folder.path().join("generated");
    for file in [
        "man/codedeploy-agent.8",
        "man/codedeploy-local.1",
        "man/codedeploy-local-validate.1",
        "man/codedeploy-controller.8",
        "completions/bash/codedeploy-local",
        "completions/zsh/_codedeploy-local",
        "completions/fish/codedeploy-controller.fish",
    ] {
        let path = generated.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, file).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let generated = generated.display().to_string();
    let packages = packages(
        folder.path(),
        &["--generated", &generated, "--format", "rpm"],
    );
    let list = |name| {
        let path = one(&packages, name, "rpm");
        let listed = run(Command::new("rpm")
            .args(["--query", "--package", "--list"])
            .arg(path));
        let found = listed
            .lines()
            .filter(|line| !line.contains("/doc/"))
            .filter(|line| line.starts_with("/usr/share") && !line.starts_with(MONITORING));
        found.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let expected = [
        "/usr/share/bash-completion/completions/codedeploy-local",
        "/usr/share/man/man1/codedeploy-local-validate.1.gz",
        "/usr/share/man/man1/codedeploy-local.1.gz",
        "/usr/share/man/man8/codedeploy-agent.8.gz",
        "/usr/share/zsh/site-functions/_codedeploy-local",
    ];
    assert_eq!(list("codedeploy-agent"), expected.map(str::to_owned).into());
    let expected = [
        "/usr/share/fish/vendor_completions.d/codedeploy-controller.fish",
        "/usr/share/man/man8/codedeploy-controller.8.gz",
    ];
    assert_eq!(
        list("codedeploy-controller"),
        expected.map(str::to_owned).into()
    );
}

#[test]
fn a_file_that_is_no_program_is_not_packed() {
    let programs = small_programs();
    std::fs::write(programs.path().join("codedeploy-agent"), "#!/bin/sh\n").unwrap();
    let output = package(programs.path(), programs.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("codedeploy-agent is not a 64-bit ELF file"),
        "{said}"
    );
}
