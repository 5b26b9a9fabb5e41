//! Repositories of packages: apt installs and upgrades from one, and both are signed.

use std::path::{Path, PathBuf};
use std::process::Command;

use codedeploy_tests::bucket::tools;
use codedeploy_tests::machine::Machine;

use super::release::{old_programs, run};
use super::site::RPM;
use crate::pages::repository;

/// A keyring with a key that signs; its agent ends with it.
struct Keyring(PathBuf);

impl Drop for Keyring {
    fn drop(&mut self) {
        let mut command = Command::new("gpgconf");
        let _ = command
            .args(["--kill", "gpg-agent"])
            .env("GNUPGHOME", &self.0)
            .status();
    }
}

fn key(keyring: &Path) -> Keyring {
    std::fs::create_dir(keyring).unwrap();
    let made = Keyring(keyring.to_owned());
    run(Command::new("chmod").arg("700").arg(keyring));
    run(gpg(keyring)
        .args([
            "--passphrase",
            "",
            "--quick-generate-key",
            "packages@localhost",
        ])
        .args(["rsa3072", "sign", "never"]));
    made
}

fn gpg(keyring: &Path) -> Command {
    let mut command = Command::new("gpg");
    command
        .env("GNUPGHOME", keyring)
        .args(["--batch", "--quiet"]);
    command
}

/// Adds a version of both packages, in one format, to the repositories in `folder`.
fn publish(folder: &Path, version: &str, format: &str) {
    let programs = old_programs();
    let packages = programs.path().join("packages");
    run(Command::new(repository().join("packaging/package"))
        .args(["--version", version, "--format", format])
        .arg("--binaries")
        .arg(programs.path().join(std::env::consts::ARCH))
        .arg("--output")
        .arg(&packages));
    run(Command::new(repository().join("packaging/repository"))
        .env("GNUPGHOME", folder.join("keyring"))
        .arg(folder.join("repository"))
        .arg("--packages")
        .arg(packages)
        .args([
            "--key",
            "packages@localhost",
            "--url",
            "file:/root/repository",
        ]));
}

/// Copies the repositories to where their URL says.
fn copy(folder: &Path, machine: &Machine) {
    run(Command::new("cp")
        .arg("--recursive")
        .arg(folder.join("repository"))
        .arg(machine.path("/root")));
}

#[tokio::test]
#[ignore = "needs root"]
async fn apt_installs_and_upgrades_from_a_signed_repository_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let _keyring = key(&folder.path().join("keyring"));
    publish(folder.path(), "0.1.0", "deb");
    let machine = Machine::boot(folder.path()).await;
    copy(folder.path(), &machine);
    machine
        .succeed(
            "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* && \
             cp /root/repository/codedeploy.sources /etc/apt/sources.list.d",
        )
        .await;
    let old = machine
        .run("dpkg --compare-versions $(dpkg-query --show --showformat '${Version}' apt) lt 2.4")
        .await;
    if old.status.success() {
        // It cannot read a key in there (docs/installation.md).
        machine
            .succeed(
                "cp /root/repository/codedeploy.asc /etc/apt/trusted.gpg.d && \
                 sed -i '/^Signed-By/,$d' /etc/apt/sources.list.d/codedeploy.sources",
            )
            .await;
    }
    let version = "dpkg-query --show --showformat '${Version}' codedeploy-agent";
    machine
        .succeed("apt-get update 2>&1 && apt-get install --yes codedeploy-agent 2>&1")
        .await;
    assert_eq!(machine.succeed(version).await, "1:0.1.0");

    publish(folder.path(), "0.2.0", "deb");
    copy(folder.path(), &machine);
    machine
        .succeed("apt-get update 2>&1 && apt-get upgrade --yes 2>&1")
        .await;
    assert_eq!(machine.succeed(version).await, "1:0.2.0");
    machine
        .succeed("apt-get install --yes --allow-downgrades codedeploy-agent=1:0.1.0 2>&1")
        .await;

    // Another's index: apt says so, and keeps what it knows.
    let index = "/root/repository/apt/dists/stable/InRelease";
    machine
        .succeed(&format!("sed -i 's/^Label: .*/Label: other/' {index}"))
        .await;
    let output = machine.run("apt-get update 2>&1").await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("BADSIG") || said.contains("signature verification"),
        "{said}"
    );
    machine.stop().await;
}

/// What the packages need and a Debian system has in no rpm package.
const SYSTEM: &str = r#"
name: system
arch: all
version: 1.0.0
maintainer: x
description: x
provides: [/bin/sh, bash, libgcc_s.so.1()(64bit), libc.so.6(GLIBC_2.17)(64bit), libc.so.6(GLIBC_2.2)(64bit)]
"#;

#[tokio::test]
#[ignore = "needs root"]
async fn dnf_installs_and_upgrades_from_a_signed_repository_which_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let _keyring = key(&folder.path().join("keyring"));
    publish(folder.path(), "0.1.0", "rpm");
    let machine = Machine::boot(folder.path()).await;
    copy(folder.path(), &machine);
    std::fs::write(folder.path().join("nfpm.yaml"), SYSTEM).unwrap();
    run(Command::new(tools().join("packaging/bin/nfpm"))
        .args(["package", "--packager", "rpm", "--target"])
        .arg(machine.path("/root/system.rpm"))
        .current_dir(folder.path()));
    machine
        .succeed(&format!(
            "{RPM} --install /root/system.rpm && mkdir -p /etc/yum.repos.d && \
             cp /root/repository/codedeploy.repo /etc/yum.repos.d"
        ))
        .await;
    let version = "rpm --query --queryformat '%{version}' codedeploy-agent";
    machine
        .succeed("dnf --assumeyes install codedeploy-agent 2>&1")
        .await;
    assert_eq!(machine.succeed(version).await, "0.1.0");

    publish(folder.path(), "0.2.0", "rpm");
    copy(folder.path(), &machine);
    machine
        .succeed("dnf --assumeyes --refresh upgrade 2>&1")
        .await;
    assert_eq!(machine.succeed(version).await, "0.2.0");
    machine
        .succeed("dnf --assumeyes downgrade codedeploy-agent 2>&1")
        .await;
    assert_eq!(machine.succeed(version).await, "0.1.0");
    machine
        .succeed("dnf --assumeyes remove codedeploy-agent 2>&1")
        .await;
    assert!(!machine.path("/opt/codedeploy-agent/bin").exists());

    // Another's index: dnf says so, and installs nothing.
    let index = format!(
        "/root/repository/rpm/{}/repodata/repomd.xml",
        std::env::consts::ARCH
    );
    machine
        .succeed(&format!("echo '<!-- other -->' >> {index}"))
        .await;
    let output = machine
        .run("dnf --assumeyes --refresh install codedeploy-agent 2>&1")
        .await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && said.contains("signature"),
        "{said}"
    );
    machine.stop().await;
}

#[test]
fn rpm_packages_and_their_index_are_signed() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = folder.path().join("keyring");
    let _kept = key(&keyring);
    publish(folder.path(), "0.1.0", "rpm");
    let repositories = folder.path().join("repository");
    let of_machine = repositories.join("rpm").join(std::env::consts::ARCH);
    run(gpg(&keyring)
        .arg("--verify")
        .arg(of_machine.join("repodata/repomd.xml.asc"))
        .arg(of_machine.join("repodata/repomd.xml")));
    let database = format!("--dbpath={}", folder.path().join("rpmdb").display());
    run(Command::new("rpmkeys")
        .arg(&database)
        .arg("--import")
        .arg(repositories.join("codedeploy.asc")));
    for name in ["codedeploy-agent", "codedeploy-controller"] {
        let file = format!("{name}-0.1.0-1.{}.rpm", std::env::consts::ARCH);
        let checked = run(Command::new("rpmkeys")
            .args([&database, "--checksig", "--verbose"])
            .arg(of_machine.join(file)));
        let signature = checked.lines().find(|line| line.contains("Signature"));
        assert!(
            signature.is_some_and(|line| line.ends_with(": OK")),
            "{checked}"
        );
    }
}
