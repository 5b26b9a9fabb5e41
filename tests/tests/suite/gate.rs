//! The gate's check of the compiler: its messages for a release that is too old and for one that is
//! newer than tested.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use crate::pages::repository;

/// Runs the check with the given releases of rustc and clippy.
fn of_toolchain(rustc: &str, clippy: &str) -> Output {
    let programs = tempfile::tempdir().unwrap();
    for (program, version) in [
        ("rustc", format!("rustc {rustc}")),
        ("cargo", format!("clippy {clippy}")),
    ] {
        let path = programs.path().join(program);
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho '{version} (0123456 2026-01-01)'\n"),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(programs.path().to_owned()).chain(std::env::split_paths(&path));
    let mut command = Command::new(repository().join(".ci/toolchain"));
    command
        .env("PATH", std::env::join_paths(folders).unwrap())
        .output()
        .unwrap()
}

#[test]
fn an_older_compiler_is_refused_with_what_to_do() {
    let output = of_toolchain("1.80.1", "0.1.80");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("found rustc 1.80.1, expected 1.") && said.contains("rustup update"),
        "{said}"
    );
}

#[test]
fn lints_of_a_newer_clippy_do_not_fail_the_gate() {
    let output = of_toolchain("1.999.0", "0.1.999");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(output.stdout, b"newer\n");
    assert!(
        said.contains("found clippy of Rust 1.999") && said.contains("do not fail the gate"),
        "{said}"
    );
}

#[test]
fn the_compiler_that_builds_this_is_good_enough() {
    let output = Command::new(repository().join(".ci/toolchain"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
