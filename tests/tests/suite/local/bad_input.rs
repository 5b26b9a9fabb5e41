//! Invalid bundles, AppSpec files and configurations: an immediate error that names the file, and
//! an unchanged host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use codedeploy_tests::bundle;
use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::programs::{Program, Programs};

/// A user who is not root.
const NOBODY: u32 = 65534;

/// Longer than any rejection takes, shorter than anybody waits.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::set_permissions(machine.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(machine.path("state")).unwrap();
        fs::write(
            machine.path("conf.yml"),
            format!("root_dir: {}\n", machine.path("state/root").display()),
        )
        .unwrap();
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles: [{{source: f, destination: {}}}]\n",
            machine.path("state/app").display()
        );
        bundle::write(
            &machine.path("bundle"),
            &[("appspec.yml", &appspec), ("f", "x")],
        );
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Deploys, as an ordinary user if this is one, with `what` in messages; it must fail soon.
    /// Returns the output.
    async fn refused(&self, arguments: &[&str], what: &str) -> String {
        let mut command = if nix::unistd::geteuid().is_root() {
            chown(self.path("state"), Some(NOBODY), Some(NOBODY)).unwrap();
            let local = self.path("codedeploy-local");
            if !local.exists() {
                let built = Programs::built()
                    .local
                    .command::<&str>([])
                    .as_std()
                    .get_program()
                    .to_owned();
                // In a process of its own: a child of another test that starts meanwhile would
                // inherit the file open for writing, and nobody could execute it.
                let copied = Program::at("cp")
                    .command([built.as_os_str(), local.as_os_str()])
                    .status()
                    .await;
                assert!(copied.unwrap().success());
            }
            let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            let mut command = Program::at("setpriv").command(user);
            command.arg(local);
            command
        } else {
            Programs::built().local.command::<&str>([])
        };
        command.args(arguments).current_dir("/").kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, command.output()).await;
        let output = output
            .unwrap_or_else(|_| panic!("{what}: no answer"))
            .unwrap();
        let told =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {told}");
        assert!(
            told.len() < 4000 && !told.contains('\u{1b}'),
            "{what}: {told}"
        );
        assert!(!self.path("state/app").exists(), "{what}: {told}");
        told
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect()
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(
        path,
        nix::sys::stat::Mode::S_IRWXU | nix::sys::stat::Mode::S_IROTH,
    )
    .unwrap();
}

fn closed(path: &Path) {
    // The mode counts, not the owner: the user of the tests may own it.
    fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
}

#[tokio::test]
async fn bundles_that_are_none() {
    type Make = fn(&Machine, &Path);
    let bundles: [(&str, &str, Make, &str); 14] = [
        (
            "zip",
            "noise",
            |_, path| fs::write(path, noise(10 << 20)).unwrap(),
            "cannot be read as zip",
        ),
        (
            "tar",
            "noise",
            |_, path| fs::write(path, noise(10 << 20)).unwrap(),
            "cannot be read as tar",
        ),
        (
            "tgz",
            "noise",
            |_, path| fs::write(path, noise(10 << 20)).unwrap(),
            "cannot be read as tgz",
        ),
        (
            "zip",
            "empty",
            |_, path| fs::write(path, "").unwrap(),
            "cannot be read as zip",
        ),
        (
            "tar",
            "empty",
            |_, path| fs::write(path, "").unwrap(),
            "it is empty",
        ),
        (
            "tgz",
            "empty",
            |_, path| fs::write(path, "").unwrap(),
            "cannot be read as tgz",
        ),
        (
            "zip",
            "a FIFO",
            |_, path| fifo(path),
            "is not a regular file",
        ),
        (
            "tgz",
            "a FIFO",
            |_, path| fifo(path),
            "is not a regular file",
        ),
        (
            "tar",
            "a device",
            |_, path| symlink("/dev/zero", path).unwrap(),
            "is not a regular file",
        ),
        (
            "tgz",
            "a dangling link",
            |_, path| symlink("/nowhere", path).unwrap(),
            "cannot be found",
        ),
        (
            "zip",
            "a folder",
            |_, path| fs::create_dir(path).unwrap(),
            "is a folder, but --type is zip",
        ),
        (
            "tgz",
            "a zip",
            |machine, path| fs::write(path, bundle::zip(&machine.path("bundle"))).unwrap(),
            "cannot be read as tgz",
        ),
        (
            "zip",
            "half a zip",
            |machine, path| {
                let bytes = bundle::zip(&machine.path("bundle"));
                fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            },
            "cannot be read as zip",
        ),
        (
            "tgz",
            "closed",
            |machine, path| {
                fs::write(path, bundle::tgz(&machine.path("bundle"))).unwrap();
                closed(path);
            },
            "Permission denied",
        ),
    ];
    let cases = bundles
        .into_iter()
        .map(|(kind, what, make, expected)| async move {
            let machine = Machine::new();
            let (path, configuration) = (machine.path("it"), machine.path("conf.yml"));
            make(&machine, &path);
            let arguments = [
                "-t",
                kind,
                "-l",
                path.to_str().unwrap(),
                "-c",
                configuration.to_str().unwrap(),
            ];
            let told = machine.refused(&arguments, what).await;
            assert!(told.contains(expected), "{kind}, {what}: {told}");
        });
    side_by_side(cases.collect()).await;
}

#[tokio::test]
async fn appspec_files_that_are_none() {
    type Make = fn(&Path);
    let files: [(&str, Make, &str); 12] = [
        ("missing", |_| {}, "has no AppSpec file appspec.yml"),
        (
            "with another name",
            |path| fs::write(path.with_file_name("AppSpec.yml"), "").unwrap(),
            r#"this bundle has "AppSpec.yml": rename it to appspec.yml"#,
        ),
        (
            "empty",
            |path| fs::write(path, "").unwrap(),
            "line 1, column 1: the file is empty",
        ),
        (
            "a path that cannot be",
            |path| {
                let destination = "/x".repeat(20_000);
                let files = format!("files: [{{source: f, destination: {destination}}}]\n");
                fs::write(path, format!("version: 0.0\nos: linux\n{files}")).unwrap();
            },
            "line 3, column 34: files[0].destination: found \"/x/x",
        ),
        (
            "noise",
            |path| fs::write(path, noise(10 << 20)).unwrap(),
            "must not have more than 1048576",
        ),
        (
            "a little noise",
            |path| fs::write(path, noise(5000)).unwrap(),
            "appspec.yml is not valid",
        ),
        (
            "no UTF-8",
            |path| fs::write(path, b"version: 0.0\nos: l\xffnux\n").unwrap(),
            "line 2",
        ),
        (
            "truncated",
            |path| fs::write(path, "version: 0.0\nos: linux\nfiles: [{sou").unwrap(),
            "not valid YAML",
        ),
        (
            "a folder",
            |path| fs::create_dir(path).unwrap(),
            "found a folder; expected a file",
        ),
        ("a FIFO", fifo, "appspec.yml is a FIFO"),
        (
            "a link out",
            |path| symlink("/etc/hostname", path).unwrap(),
            "a link that leads out of the revision",
        ),
        (
            "closed",
            |path| {
                fs::write(path, "version: 0.0\nos: linux\n").unwrap();
                closed(path);
            },
            "Permission denied",
        ),
    ];
    let cases = files.into_iter().map(|(what, make, expected)| async move {
        let machine = Machine::new();
        let appspec = machine.path("bundle/appspec.yml");
        fs::remove_file(&appspec).unwrap();
        make(&appspec);
        let (folder, configuration) = (machine.path("bundle"), machine.path("conf.yml"));
        let arguments = [
            "-l",
            folder.to_str().unwrap(),
            "-c",
            configuration.to_str().unwrap(),
        ];
        let told = machine.refused(&arguments, what).await;
        assert!(told.contains(expected), "{what}: {told}");
    });
    side_by_side(cases.collect()).await;
}

#[tokio::test]
async fn configurations_and_folders_that_are_none() {
    type Make = fn(&Machine);
    let cases: [(&str, Make, &str); 8] = [
        (
            "missing",
            |machine| fs::remove_file(machine.path("conf.yml")).unwrap(),
            "No such file",
        ),
        (
            "noise",
            |machine| fs::write(machine.path("conf.yml"), noise(10 << 20)).unwrap(),
            "conf.yml",
        ),
        (
            "a little noise",
            |machine| fs::write(machine.path("conf.yml"), noise(5000)).unwrap(),
            "conf.yml",
        ),
        (
            "closed",
            |machine| closed(&machine.path("conf.yml")),
            "Permission denied",
        ),
        (
            "a FIFO",
            |machine| {
                fs::remove_file(machine.path("conf.yml")).unwrap();
                fifo(&machine.path("conf.yml"));
            },
            "found a FIFO",
        ),
        (
            "a wrong value",
            |machine| fs::write(machine.path("conf.yml"), "root_dir: here\n").unwrap(),
            "line 1: root_dir: found \"here\"; expected an absolute path",
        ),
        (
            "a file in place of the state",
            |machine| fs::write(machine.path("state/root"), "").unwrap(),
            "state/root",
        ),
        (
            "a closed bundle",
            |machine| closed(&machine.path("bundle")),
            "cannot look into the folder",
        ),
    ];
    let cases = cases.into_iter().map(|(what, make, expected)| async move {
        let machine = Machine::new();
        make(&machine);
        let (folder, configuration) = (machine.path("bundle"), machine.path("conf.yml"));
        let arguments = [
            "-l",
            folder.to_str().unwrap(),
            "-c",
            configuration.to_str().unwrap(),
        ];
        let told = machine.refused(&arguments, what).await;
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(told.contains(expected), "{what}: {told}");
    });
    side_by_side(cases.collect()).await;
}
