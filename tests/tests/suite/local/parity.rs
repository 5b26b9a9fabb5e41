//! Parity with AWS's agents: AppSpec and bundle in, files and script log out.
//!
//! Every case runs in a process of its own, as a person would deploy it. `@` is the host's folder;
//! expectations follow the behaviour of agents 1.8.1 and 2.1, except where a case explains a
//! difference.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::s3_stub::{Reply, S3Stub};
use codedeploy_tests::{bundle, tree};

use case::{Case, PLAIN};

mod case;
mod files;
mod hooks;
mod permissions;

#[tokio::test]
async fn files_go_where_they_go_with_aws() {
    all(files::FILES).await;
}

#[tokio::test]
async fn permissions_mean_what_they_mean_with_aws() {
    all(permissions::PERMISSIONS).await;
}

#[tokio::test]
async fn scripts_run_and_are_logged_as_with_aws() {
    all(hooks::HOOKS).await;
}

async fn all(cases: &[Case]) {
    side_by_side(cases.iter().map(|case| deployed(*case)).collect()).await;
}

async fn deployed(case: Case) {
    for kind in ["directory", "tgz", "zip"] {
        Machine::of(&case).deploy(&case, kind).await;
    }
}

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn of(case: &Case) -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::set_permissions(machine.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(
            machine.path("conf.yml"),
            format!(":root_dir: {}\n", machine.path("root").display()),
        )
        .unwrap();
        fs::create_dir(machine.path("host")).unwrap();
        let appspec =
            format!("version: 0.0\nos: linux\n{}", case.appspec).replace('@', &machine.host());
        let files = [("appspec.yml", appspec.as_str())];
        machine.write("bundle", case.bundle.iter().copied().chain(files));
        machine.write("host", case.before.iter().copied());
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self) -> String {
        self.path("host").display().to_string()
    }

    fn write<'a>(&self, folder: &str, objects: impl Iterator<Item = (&'a str, &'a str)>) {
        let folder = self.path(folder);
        for (name, text) in objects {
            match text.strip_prefix("->") {
                Some(target) => symlink(target, folder.join(name)).unwrap(),
                None if name.ends_with('/') => fs::create_dir_all(folder.join(name)).unwrap(),
                None => bundle::write(&folder, &[(name, text)]),
            }
        }
    }

    async fn deploy(&self, case: &Case, kind: &str) {
        let (name, revision, packed) = (case.name, self.path("bundle"), self.path("packed"));
        let location = match kind {
            "directory" => revision,
            _ => {
                let bytes = if kind == "zip" {
                    bundle::zip(&revision)
                } else {
                    bundle::tgz(&revision)
                };
                fs::write(&packed, bytes).unwrap();
                packed
            }
        };
        let mut command = Programs::built().local.command(["-t", kind, "-l"]);
        command
            .arg(location)
            .arg("-c")
            .arg(self.path("conf.yml"))
            .args(case.options);
        command
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("INHERITED", "yes");
        let output = command.output().await.unwrap();
        let told =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.success(),
            case.failure.is_empty(),
            "{name}, {kind}:\n{told}"
        );
        assert!(told.contains(case.failure), "{name}, {kind}:\n{told}");
        assert_eq!(self.seen(), case.host, "{name}, {kind}:\n{told}");
        assert_eq!(self.log(), case.log, "{name}, {kind}:\n{told}");
    }

    /// Everything on the host except owners, which depend on the user of the tests.
    fn seen(&self) -> Vec<String> {
        let own = fs::metadata(self.path("host")).unwrap();
        let listing =
            tree::listing(&self.path("host")).replace(&format!(" {}:{}", own.uid(), own.gid()), "");
        listing
            .replace(&self.host(), "@")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The script log of the only deployment, without its times.
    fn log(&self) -> Vec<String> {
        let folders = |path: PathBuf| {
            fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
        };
        let deployments =
            folders(self.path("root")).filter(|group| !group.ends_with("deployment-instructions"));
        let logs = deployments
            .flat_map(folders)
            .map(|deployment| deployment.join("logs/scripts.log"));
        let mut text = logs.filter_map(|log| fs::read_to_string(log).ok());
        let text = text.next().unwrap_or_default();
        let time = "2026-01-31 12:00:00 ".len();
        text.lines()
            .map(|line| line.get(time..).unwrap_or("").to_owned())
            .collect()
    }
}

#[tokio::test]
async fn scripts_of_a_revision_in_s3_see_where_it_came_from_even_when_nobody_names_the_etag() {
    let case = Case {
        bundle: &[("a.sh", "#!/bin/sh\nenv | grep ^BUNDLE_ | sort\n")],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh}]\n",
        ..PLAIN
    };
    let noted = [
        "[stdout]BUNDLE_BUCKET=bucket",
        "[stdout]BUNDLE_ETAG=e1",
        "[stdout]BUNDLE_KEY=the/app.tgz",
    ];
    let version = "[stdout]BUNDLE_VERSION=v7";
    for (query, versions) in [("", &[][..]), ("?versionId=v7&etag=e1", &[version])] {
        let machine = Machine::of(&case);
        let body = std::sync::Arc::new(bundle::tgz(&machine.path("bundle")));
        let stub = S3Stub::serve(move |_, request| Reply::object(request, &body, "e1")).await;
        let location = format!("s3://bucket/the/app.tgz{query}");
        let mut command = Programs::built()
            .local
            .command(["-t", "tgz", "-l", &location, "-c"]);
        command
            .arg(machine.path("conf.yml"))
            .env("AWS_ENDPOINT_URL_S3", &stub.endpoint);
        command
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "key");
        // From another deployment: an inherited value must not count.
        command.env("BUNDLE_VERSION", "inherited");
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(machine.log()[2..], [&noted[..], versions].concat());
    }
}

#[tokio::test]
#[ignore = "needs root"]
async fn selinux_rules_are_added_as_aws_adds_them_and_removed_by_the_next_install_which_needs_root()
{
    let case = Case {
        bundle: &[("d/g", "deep"), ("d/h", "deeper")],
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n\
                  - {object: @/app/g, context: {name: system_u, type: httpd_sys_content_t, range: \"s0-s1:c0.c5\"}}\n\
                  - {object: @/app/h, context: {type: etc_t}}\n",
        ..PLAIN
    };
    let machine = Machine::of(&case);
    let note = format!(
        "#!/bin/sh\necho \"${{0##*/}} $*\" >> {}\n",
        machine.path("noted").display()
    );
    bundle::write(
        &machine.path("tools"),
        &[("semanage", &note), ("restorecon", &note)],
    );
    let deploy = async || {
        let local = Programs::built()
            .local
            .command::<&str>([])
            .as_std()
            .get_program()
            .to_owned();
        let mut command = Program::at("unshare").command(["--mount", "/bin/sh", "-c"]);
        command
            .arg("mount --bind \"$0\" /usr/sbin && exec \"$@\"")
            .arg(machine.path("tools"))
            .arg(local);
        command
            .arg("-l")
            .arg(machine.path("bundle"))
            .arg("-c")
            .arg(machine.path("conf.yml"));
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let noted = fs::read_to_string(machine.path("noted")).unwrap();
        fs::remove_file(machine.path("noted")).unwrap();
        noted.replace(&machine.host(), "@")
    };
    let added = "semanage fcontext -a -s system_u -t httpd_sys_content_t -r s0-s1:c0.c5 @/app/g\nrestorecon -v @/app/g\n\
                 semanage fcontext -a -t etc_t @/app/h\nrestorecon -v @/app/h\n";
    assert_eq!(deploy().await, added);
    assert_eq!(
        deploy().await,
        added,
        "a rule that stays is set again, and never missing in between"
    );
    let appspec = machine.path("bundle/appspec.yml");
    let text = fs::read_to_string(&appspec).unwrap();
    fs::write(&appspec, text.split("permissions:").next().unwrap()).unwrap();
    assert_eq!(
        deploy().await,
        "semanage fcontext -d @/app/g\nsemanage fcontext -d @/app/h\n"
    );
}
