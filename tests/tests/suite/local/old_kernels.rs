//! `codedeploy-local` on kernels that lack newer system calls: the same files, scripts and messages
//! as on this one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Output;

use codedeploy_tests::old_kernel::Kernel;
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::{bundle, tree};

/// A host with one application.
struct Host {
    folder: tempfile::TempDir,
    local: Program,
}

impl Host {
    fn new(kernel: Option<Kernel>) -> Self {
        let local = Programs::built().local;
        let host = Self {
            folder: tempfile::tempdir().unwrap(),
            local: match kernel {
                Some(kernel) => kernel.program(&local),
                None => local,
            },
        };
        let folder = host.folder.path().display();
        let text = format!(
            "root_dir: {folder}/root\nlog_dir: {folder}/log\npid_dir: {folder}/run\nrollback_on_failure: true\n"
        );
        fs::write(host.path("conf.yml"), text).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a revision: files with permissions and links, and scripts that are reached through
    /// links.
    fn revision(&self, version: &str, validate: &str) -> PathBuf {
        let revision = self.path("revision");
        let _ = fs::remove_dir_all(&revision);
        let appspec = format!(
            "version: 0.0\nos: linux\nfile_exists_behavior: OVERWRITE\nfiles:\n  - source: site\n    destination: {app}\n\
             permissions:\n  - object: {app}\n    mode: 640\n    type: [file]\nhooks:\n  \
             ApplicationStart:\n    - location: current/start.sh\n  \
             ValidateService:\n    - location: check.sh\n      timeout: 20\n",
            app = self.path("app").display(),
        );
        let start = format!(
            "#!/bin/sh\n{{ echo {version} $LIFECYCLE_EVENT; ls /proc/$$/fd; }} >> {}\n",
            self.path("notes").display()
        );
        let validate = format!("#!/bin/sh\n{validate}\n");
        bundle::write(
            &revision,
            &[
                ("appspec.yml", &appspec),
                ("scripts/v1/start.sh", &start),
                ("scripts/v1/real/validate.sh", &validate),
                ("scripts/v1/real/deep/x", ""),
                ("site/index.html", version),
                (&format!("site/only/{version}"), version),
                ("site/all/the/same", "same"),
            ],
        );
        symlink("./scripts//v1", revision.join("current")).unwrap();
        symlink("../v1/real/deep", revision.join("scripts/v1/more")).unwrap();
        symlink("scripts/v1/more/../validate.sh", revision.join("check.sh")).unwrap();
        symlink("all/the", revision.join("site/link")).unwrap();
        revision
    }

    async fn deploy(&self, revision: &[u8]) -> Output {
        let file = self.path("revision.tgz");
        fs::write(&file, revision).unwrap();
        let words = [
            "-t",
            "tgz",
            "-l",
            file.to_str().unwrap(),
            "-c",
            self.path("conf.yml").to_str().unwrap(),
        ]
        .map(std::ffi::OsString::from);
        let shell = ["-c", "exec 9</dev/null; exec \"$@\"", "sh"].map(std::ffi::OsString::from);
        let words = self.local.command(words);
        let words = words.as_std();
        // A handle that the program inherits, as from a careless supervisor.
        Program::at("/bin/sh")
            .output(
                shell
                    .into_iter()
                    .chain([words.get_program().to_owned()])
                    .chain(words.get_args().map(std::ffi::OsStr::to_owned)),
            )
            .await
    }

    fn notes(&self) -> String {
        fs::read_to_string(self.path("notes")).unwrap_or_default()
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// The kernels to compare: this one first.
fn kernels() -> impl Iterator<Item = Option<Kernel>> {
    std::iter::once(None).chain(Kernel::ALL.map(Some))
}

#[tokio::test]
async fn a_deployment_and_its_rollback_leave_what_they_leave_on_this_kernel() {
    let mut seen = Vec::new();
    for kernel in kernels() {
        let host = Host::new(kernel);
        let first = bundle::tgz(&host.revision("v1", "exit 0"));
        let output = host.deploy(&first).await;
        assert!(output.status.success(), "{kernel:?}: {}", said(&output));
        let installed = tree::listing(&host.path("app"));
        let second = bundle::tgz(&host.revision("v2", "exit 0"));
        let output = host.deploy(&second).await;
        assert!(output.status.success(), "{kernel:?}: {}", said(&output));
        let updated = tree::listing(&host.path("app"));
        assert!(updated.contains("only/v2") && !updated.contains("only/v1"));
        let third = bundle::tgz(&host.revision("v3", "echo unwell; exit 3"));
        let output = host.deploy(&third).await;
        assert!(!output.status.success(), "{kernel:?}: {}", said(&output));
        assert!(
            said(&output).contains("this host was rolled back"),
            "{kernel:?}: {}",
            said(&output)
        );
        assert_eq!(tree::listing(&host.path("app")), updated, "{kernel:?}");
        seen.push((installed, updated, host.notes()));
        assert_eq!(seen[0], seen[seen.len() - 1], "{kernel:?}");
    }
    let (_, _, notes) = &seen[0];
    assert!(notes.starts_with("v1 ApplicationStart\n"), "{notes}");
    assert!(!notes.lines().any(|line| line == "9"), "{notes}");
}

#[tokio::test]
async fn a_script_behind_a_link_out_of_the_revision_does_not_run() {
    for kernel in kernels() {
        let host = Host::new(kernel);
        let revision = host.revision("v1", "exit 0");
        let outside = host.path("outside");
        bundle::write(&outside, &[("start.sh", "#!/bin/sh\ntouch ran\n")]);
        for target in ["../outside", outside.to_str().unwrap()] {
            fs::remove_file(revision.join("current")).unwrap();
            symlink(target, revision.join("current")).unwrap();
            // A folder, because bundles with such links are rejected before.
            let words = ["-l", revision.to_str().unwrap(), "-c"];
            let configuration = host.path("conf.yml");
            let words = words.into_iter().chain(configuration.to_str());
            let output = host.local.output(words).await;
            let said = said(&output);
            assert!(!output.status.success(), "{kernel:?}: {said}");
            assert!(
                said.contains("links out of the revision, which are not run"),
                "{kernel:?}: {said}"
            );
        }
        assert!(!outside.join("ran").exists());
    }
}

#[tokio::test]
async fn every_process_of_a_script_that_runs_too_long_is_asked_to_end() {
    for kernel in kernels() {
        let host = Host::new(kernel);
        let asked = host.path("asked");
        // The process belongs to a process group whose leader has ended.
        let validate = format!(
            "setsid sh -c '(trap \"echo asked > {}; exit\" TERM; while :; do sleep 0.05; done) & exit'\nsleep 1000",
            asked.display()
        );
        let revision = host.revision("v1", &validate);
        let appspec = revision.join("appspec.yml");
        let text = fs::read_to_string(&appspec)
            .unwrap()
            .replace("timeout: 20", "timeout: 1");
        fs::write(&appspec, text).unwrap();
        let output = host.deploy(&bundle::tgz(&revision)).await;
        assert!(!output.status.success(), "{kernel:?}: {}", said(&output));
        assert!(asked.exists(), "{kernel:?}: {}", said(&output));
    }
}
