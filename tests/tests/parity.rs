//! What AWS's agents do with a revision, ours does: AppSpec and bundle in, files and script log out.
//!
//! Every case runs in a process of its own, as a person would deploy it. `@` is the host's folder; expectations follow
//! the behaviour of agents 1.8.1 and 2.1 except where a case says why it differs.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests start programs, and fail where they cannot"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use codedeploy_tests::cases::side_by_side;
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::s3_stub::{Reply, S3Stub};
use codedeploy_tests::{bundle, tree};

/// One deployment to one host.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Path and text, or a link's target after `->`.
    bundle: &'static [(&'static str, &'static str)],
    /// What follows `version` and `os`.
    appspec: &'static str,
    /// What is on the host before: as in `bundle`, a folder ends in `/`.
    before: &'static [(&'static str, &'static str)],
    options: &'static [&'static str],
    /// Part of what is told about a failure; empty for a success.
    failure: &'static str,
    /// Everything on the host afterwards: path, mode, text or target.
    host: &'static [&'static str],
    /// The script log without its times.
    log: &'static [&'static str],
}

const PLAIN: Case = Case {
    name: "",
    bundle: &[("f", "new"), ("d/g", "deep"), ("d/e/h", "deeper")],
    appspec: "",
    before: &[],
    options: &[],
    failure: "",
    host: &[],
    log: &[],
};

/// The whole host of a deployment that copies `d` to `@/app`.
const INSTALLED: &[&str] = &["app/ 0755", "app/e/ 0755", r#"app/e/h 0644 "deeper""#, r#"app/g 0644 "deep""#];

const FILES: &[Case] = &[
    Case {
        name: "a file goes into the destination, a folder's contents do, and missing parents are made",
        appspec: "files:\n- {source: f, destination: @/a/b}\n- {source: /d, destination: @/c/}\n",
        host: &[
            "a/ 0755",
            "a/b/ 0755",
            r#"a/b/f 0644 "new""#,
            "c/ 0755",
            "c/e/ 0755",
            r#"c/e/h 0644 "deeper""#,
            r#"c/g 0644 "deep""#,
        ],
        ..PLAIN
    },
    Case {
        name: "a slash is all of the revision, the AppSpec file too",
        bundle: &[("f", "new")],
        appspec: "files: [{source: /, destination: @/app}]\n",
        host: &[
            "app/ 0755",
            r#"app/appspec.yml 0644 "version: 0.0\nos: linux\nfiles: [{source: /, destination: @/app}]\n""#,
            r#"app/f 0644 "new""#,
        ],
        ..PLAIN
    },
    Case {
        name: "mappings meet in one folder",
        appspec: "files:\n- {source: d/e, destination: @/app}\n- {source: f, destination: @/app/e}\n- {source: d/g, destination: @/app/e}\n",
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/f 0644 "new""#,
            r#"app/e/g 0644 "deep""#,
            r#"app/h 0644 "deeper""#,
        ],
        ..PLAIN
    },
    Case {
        name: "two entries for one destination, whatever the file exists behavior",
        appspec: "files:\n- {source: d, destination: @/app}\n- {source: d/e, destination: @/app/e}\n",
        options: &["-b", "OVERWRITE"],
        failure: "app/e/h: two entries of the revision go there",
        ..PLAIN
    },
    Case {
        name: "a file and a folder for one destination",
        bundle: &[("x/app", "a file"), ("d/g", "deep")],
        appspec: "files:\n- {source: x, destination: @}\n- {source: d, destination: @/app}\n",
        failure: "app: not a folder",
        ..PLAIN
    },
    Case {
        name: "a source that is not there",
        appspec: "files: [{source: nothing, destination: @/app}]\n",
        failure: "the revision has no nothing",
        ..PLAIN
    },
    Case {
        name: "an existing file is refused by default, and nothing has changed",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g", "old")],
        failure: "app/g: a file is there already",
        host: &["app/ 0755", r#"app/g 0644 "old""#],
        ..PLAIN
    },
    Case {
        name: "OVERWRITE replaces it",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g", "old"), ("app/mine", "stays")],
        options: &["-b", "OVERWRITE"],
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0644 "deeper""#,
            r#"app/g 0644 "deep""#,
            r#"app/mine 0644 "stays""#,
        ],
        ..PLAIN
    },
    Case {
        name: "RETAIN keeps it, and its permissions",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, mode: 600, type: [file]}]\n",
        before: &[("app/g", "old")],
        options: &["-b", "retain"],
        host: &["app/ 0755", "app/e/ 0755", r#"app/e/h 0600 "deeper""#, r#"app/g 0644 "old""#],
        ..PLAIN
    },
    Case {
        name: "RETAIN keeps a folder in a file's place",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g/mine", "old")],
        options: &["-b", "RETAIN"],
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0644 "deeper""#,
            "app/g/ 0755",
            r#"app/g/mine 0644 "old""#,
        ],
        ..PLAIN
    },
    Case {
        name: "OVERWRITE does not replace a folder",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app/g/mine", "old")],
        options: &["-b", "OVERWRITE"],
        failure: "app/g: a folder is there",
        host: &["app/ 0755", "app/g/ 0755", r#"app/g/mine 0644 "old""#],
        ..PLAIN
    },
    Case {
        name: "a file where a folder must go, even with RETAIN",
        appspec: "files: [{source: d, destination: @/app}]\n",
        before: &[("app", "a file")],
        options: &["-b", "RETAIN"],
        failure: "app: not a folder",
        host: &[r#"app 0644 "a file""#],
        ..PLAIN
    },
    Case {
        name: "the AppSpec's behavior wins over the deployment's",
        appspec: "file_exists_behavior: overwrite\nfiles: [{source: f, destination: @}]\n",
        before: &[("f", "old")],
        host: &[r#"f 0644 "new""#],
        ..PLAIN
    },
    Case {
        name: "a link to a file is copied as a link, whether or not its target exists",
        bundle: &[("d/g", "deep"), ("d/l", "->g"), ("d/m", "->/nowhere/at all")],
        appspec: "files: [{source: d, destination: @/app}]\n",
        host: &["app/ 0755", r#"app/g 0644 "deep""#, "app/l -> g", "app/m -> /nowhere/at all"],
        ..PLAIN
    },
    Case {
        name: "a destination behind an operator's link",
        appspec: "files: [{source: f, destination: @/current/app}]\n",
        before: &[("real/", ""), ("current", "->real")],
        host: &["current -> real", "real/ 0755", "real/app/ 0755", r#"real/app/f 0644 "new""#],
        ..PLAIN
    },
    Case {
        name: "names with spaces, quotes and letters of any alphabet",
        bundle: &[("my files/it's a \"ünïcode\" $(name)", "x")],
        appspec: "files: [{source: my files, destination: \"@/my app\"}]\n",
        host: &["my app/ 0755", "my app/it's a \"ünïcode\" $(name) 0644 \"x\""],
        ..PLAIN
    },
    // AWS's agents resolve it against the folder they happen to run in.
    Case {
        name: "a relative destination is refused",
        appspec: "files: [{source: f, destination: app}]\n",
        failure: "files[0].destination",
        ..PLAIN
    },
    // AWS's agents copy from wherever it leads.
    Case {
        name: "a source outside the revision is refused",
        appspec: "files: [{source: ../../../f, destination: @/app}]\n",
        failure: "files[0].source",
        ..PLAIN
    },
];

const PERMISSIONS: &[Case] = &[
    Case {
        name: "two stars mean everything below the object, and not the object",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/, mode: 700}]\n",
        host: &["app/ 0755", "app/e/ 0700", r#"app/e/h 0700 "deeper""#, r#"app/g 0700 "deep""#],
        ..PLAIN
    },
    Case {
        name: "a parent of the destination that the Install makes is below its own parent",
        appspec: "files: [{source: f, destination: @/a/b/c}]\npermissions: [{object: @/a, type: [directory], mode: 711}]\n",
        host: &["a/ 0755", "a/b/ 0711", "a/b/c/ 0711", r#"a/b/c/f 0644 "new""#],
        ..PLAIN
    },
    Case {
        name: "type chooses files or folders",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app, type: [file], mode: 640}\n- {object: @/app, type: [directory], mode: 750}\n",
        host: &["app/ 0755", "app/e/ 0750", r#"app/e/h 0640 "deeper""#, r#"app/g 0640 "deep""#],
        ..PLAIN
    },
    Case {
        name: "a name pattern means direct children, and except takes direct children out",
        bundle: &[
            ("d/a.sh", "1"),
            ("d/b.sh", "2"),
            ("d/c.txt", "3"),
            ("d/e/a.sh", "4"),
            ("d/e/c.tmp", "5"),
            ("d/c.tmp", "6"),
        ],
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app, pattern: \"*.sh\", except: [\"b*\"], mode: 744}\n- {object: @/app/e, except: [\"*.tmp\"], mode: 600}\n",
        host: &[
            "app/ 0755",
            r#"app/a.sh 0744 "1""#,
            r#"app/b.sh 0644 "2""#,
            r#"app/c.tmp 0644 "6""#,
            r#"app/c.txt 0644 "3""#,
            "app/e/ 0755",
            r#"app/e/a.sh 0600 "4""#,
            r#"app/e/c.tmp 0644 "5""#,
        ],
        ..PLAIN
    },
    Case {
        name: "except does not reach below direct children",
        bundle: &[("d/e/c.tmp", "5"), ("d/c.tmp", "6")],
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, except: [\"*.tmp\"], type: [file], mode: 600}]\n",
        host: &["app/ 0755", r#"app/c.tmp 0644 "6""#, "app/e/ 0755", r#"app/e/c.tmp 0600 "5""#],
        ..PLAIN
    },
    Case {
        name: "an object that is a file gets its mode, and a short one is padded with zeros",
        bundle: &[("d/empty", "")],
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/empty, mode: 40}]\n",
        host: &["app/ 0755", r#"app/empty 0040 """#],
        ..PLAIN
    },
    // YAML 1.1 reads 0644 as 420, which AWS's agent 1.8.1 then refuses or sets.
    Case {
        name: "a mode with a leading zero is octal, with or without quotes",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app/g, mode: 0600}\n- {object: @/app/e/h, mode: \"0640\"}\n",
        host: &["app/ 0755", "app/e/ 0755", r#"app/e/h 0640 "deeper""#, r#"app/g 0600 "deep""#],
        ..PLAIN
    },
    Case {
        name: "an object that is a file is not a folder",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/g, type: [directory], mode: 600}]\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "an object that is nowhere changes nothing",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/other, mode: 600}]\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "what this Install did not bring keeps its permissions",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @, mode: 700}]\n",
        before: &[("mine", "stays"), ("app/", ""), ("app/mine", "stays")],
        host: &[
            "app/ 0755",
            "app/e/ 0700",
            r#"app/e/h 0700 "deeper""#,
            r#"app/g 0700 "deep""#,
            r#"app/mine 0644 "stays""#,
            r#"mine 0644 "stays""#,
        ],
        ..PLAIN
    },
    Case {
        name: "one path, two permissions",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app, mode: 600}\n- {object: @/app/g, mode: 640}\n",
        failure: "app/g: two entries of permissions apply to it",
        ..PLAIN
    },
    Case {
        name: "a pattern for an object that is a file",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/g, pattern: \"*\", mode: 600}]\n",
        failure: "app/g is a file: pattern must be",
        ..PLAIN
    },
    Case {
        name: "a default ACL entry for a file",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, acls: [\"d:u:0:rw\"]}]\n",
        failure: "cannot have default ACL entries",
        ..PLAIN
    },
    // AWS's agent 2 ignores it silently, and 1.8.1 has changed half of the host by then.
    Case {
        name: "an owner that the host does not know",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, owner: nobody-of-that-name}]\n",
        failure: "this host has no user \"nobody-of-that-name\"",
        ..PLAIN
    },
];

const HOOKS: &[Case] = &[
    Case {
        name: "scripts run in their order with their output between",
        bundle: &[("b.sh", "#!/bin/sh\necho b\n"), ("s/a.sh", "#!/bin/sh\necho wrong >&2\n")],
        appspec: "hooks:\n  AfterInstall: [{location: /b.sh}, {location: s/a.sh, timeout: \"10\"}]\n  BeforeInstall: [{location: b.sh}]\n",
        log: &[
            "LifecycleEvent - BeforeInstall",
            "Script - b.sh",
            "[stdout]b",
            "LifecycleEvent - AfterInstall",
            "Script - b.sh",
            "[stdout]b",
            "Script - s/a.sh",
            "[stderr]wrong",
        ],
        ..PLAIN
    },
    Case {
        name: "the first failure ends the event and the deployment",
        bundle: &[
            ("a.sh", "#!/bin/sh\nprintf unfinished\nexit 3\n"),
            ("b.sh", "#!/bin/sh\necho b\n"),
            ("f", "new"),
        ],
        appspec: "files: [{source: f, destination: @}]\nhooks:\n  BeforeInstall: [{location: a.sh}, {location: b.sh}]\n",
        failure: "failed at BeforeInstall in a.sh: Script at specified location: a.sh failed with exit code 3",
        log: &["LifecycleEvent - BeforeInstall", "Script - a.sh", "[stdout]unfinished"],
        ..PLAIN
    },
    Case {
        name: "a script that is not there",
        appspec: "hooks:\n  BeforeInstall: [{location: no such.sh}]\n",
        failure: "failed at BeforeInstall in no such.sh: Script does not exist at specified location: ",
        log: &["LifecycleEvent - BeforeInstall", "Script - no such.sh"],
        ..PLAIN
    },
    // Agent 1.8.1 splits the path at its spaces; agent 2 cannot run what has no #! line.
    Case {
        name: "a script with spaces in its path, no #! line, and no permission to run",
        bundle: &[("my scripts/a b.sh", "echo \"${0##*/}\" $LIFECYCLE_EVENT $#\n")],
        appspec: "hooks:\n  ValidateService: [{location: \" my scripts/a b.sh \", runas: \"\"}]\n",
        log: &[
            "LifecycleEvent - ValidateService",
            "Script - my scripts/a b.sh",
            "[stdout]a b.sh ValidateService 0",
        ],
        ..PLAIN
    },
    Case {
        name: "what a script may rely on: no input, its own group, the deployment's variables, no keys",
        bundle: &[(
            "a.sh",
            "#!/bin/sh\ncat\necho $APPLICATION_NAME $DEPLOYMENT_GROUP_NAME $DEPLOYMENT_GROUP_ID ${DEPLOYMENT_ID%%-*}\nread -r _ _ _ _ group _ < /proc/$$/stat\n[ $$ = $group ] && echo own group\necho \"<$AWS_SECRET_ACCESS_KEY>\" $INHERITED\n",
        )],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh}]\n",
        options: &["-a", "shop", "-d", "Web", "-g", "web-1"],
        log: &[
            "LifecycleEvent - AfterInstall",
            "Script - a.sh",
            "[stdout]shop Web web-1 d",
            "[stdout]own group",
            "[stdout]<> yes",
        ],
        ..PLAIN
    },
    Case {
        name: "escape sequences do not reach the log, tabs do",
        bundle: &[("a.sh", "#!/bin/sh\nprintf '\\033[31mred\\033[0m\\ttab\\r\\n\\n\\377\\n'\n")],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh}]\n",
        log: &[
            "LifecycleEvent - AfterInstall",
            "Script - a.sh",
            "[stdout]red\ttab",
            "[stdout]",
            "[stdout]\u{fffd}",
        ],
        ..PLAIN
    },
    Case {
        name: "the AppSpec file that is named",
        bundle: &[
            ("a.sh", "#!/bin/sh\necho other\n"),
            (
                "deploy/other.yml",
                "version: 0.0\nos: linux\nhooks: {AfterInstall: [{location: a.sh}], ValidateService: [{location: a.sh}]}\n",
            ),
        ],
        appspec: "hooks:\n  AfterInstall: [{location: nothing.sh}]\n",
        options: &["-A", "deploy/other.yml", "-e", "ValidateService"],
        log: &["LifecycleEvent - ValidateService", "Script - a.sh", "[stdout]other"],
        ..PLAIN
    },
    Case {
        name: "sections and events with nothing in them",
        appspec: "files:\npermissions: ~\nhooks:\n  BeforeInstall:\n  AfterInstall: []\n",
        ..PLAIN
    },
    Case {
        name: "keys that nobody knows",
        appspec: "files: [{source: d, destination: @/app, mode: 3}]\ncomment: {a: [b]}\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "an event that is not of this deployment",
        bundle: &[("a.sh", "#!/bin/sh\n")],
        appspec: "hooks:\n  WarmUp: [{location: a.sh}]\n",
        failure: "WarmUp",
        ..PLAIN
    },
    Case {
        name: "scripts outside the revision are refused",
        appspec: "hooks:\n  AfterInstall: [{location: ../../../../a.sh}]\n",
        failure: "hooks.AfterInstall[0].location",
        ..PLAIN
    },
];

#[tokio::test]
async fn files_go_where_they_go_with_aws() {
    all(FILES).await;
}

#[tokio::test]
async fn permissions_mean_what_they_mean_with_aws() {
    all(PERMISSIONS).await;
}

#[tokio::test]
async fn scripts_run_and_are_logged_as_with_aws() {
    all(HOOKS).await;
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
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        fs::set_permissions(machine.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(machine.path("conf.yml"), format!(":root_dir: {}\n", machine.path("root").display()))
            .unwrap();
        fs::create_dir(machine.path("host")).unwrap();
        let appspec = format!("version: 0.0\nos: linux\n{}", case.appspec).replace('@', &machine.host());
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
                let bytes = if kind == "zip" { bundle::zip(&revision) } else { bundle::tgz(&revision) };
                fs::write(&packed, bytes).unwrap();
                packed
            }
        };
        let mut command = Programs::built().local.command(["-t", kind, "-l"]);
        command.arg(location).arg("-c").arg(self.path("conf.yml")).args(case.options);
        command.env("AWS_SECRET_ACCESS_KEY", "secret").env("INHERITED", "yes");
        let output = command.output().await.unwrap();
        let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), case.failure.is_empty(), "{name}, {kind}:\n{told}");
        assert!(told.contains(case.failure), "{name}, {kind}:\n{told}");
        assert_eq!(self.seen(), case.host, "{name}, {kind}:\n{told}");
        assert_eq!(self.log(), case.log, "{name}, {kind}:\n{told}");
    }

    /// Everything on the host but owners, which are those of who runs this.
    fn seen(&self) -> Vec<String> {
        let own = fs::metadata(self.path("host")).unwrap();
        let listing = tree::listing(&self.path("host")).replace(&format!(" {}:{}", own.uid(), own.gid()), "");
        listing.replace(&self.host(), "@").lines().map(str::to_owned).collect()
    }

    /// The only deployment's script log without its times.
    fn log(&self) -> Vec<String> {
        let folders = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let deployments =
            folders(self.path("root")).filter(|group| !group.ends_with("deployment-instructions"));
        let logs = deployments.flat_map(folders).map(|deployment| deployment.join("logs/scripts.log"));
        let mut text = logs.filter_map(|log| fs::read_to_string(log).ok());
        let text = text.next().unwrap_or_default();
        let time = "2026-01-31 12:00:00 ".len();
        text.lines().map(|line| line.get(time..).unwrap_or("").to_owned()).collect()
    }
}

#[tokio::test]
async fn scripts_of_a_revision_in_s3_see_where_it_came_from_even_when_nobody_names_the_etag() {
    let case = Case {
        bundle: &[("a.sh", "#!/bin/sh\nenv | grep ^BUNDLE_ | sort\n")],
        appspec: "hooks:\n  AfterInstall: [{location: a.sh}]\n",
        ..PLAIN
    };
    let noted = ["[stdout]BUNDLE_BUCKET=bucket", "[stdout]BUNDLE_ETAG=e1", "[stdout]BUNDLE_KEY=the/app.tgz"];
    let version = "[stdout]BUNDLE_VERSION=v7";
    for (query, versions) in [("", &[][..]), ("?versionId=v7&etag=e1", &[version])] {
        let machine = Machine::of(&case);
        let body = std::sync::Arc::new(bundle::tgz(&machine.path("bundle")));
        let stub = S3Stub::serve(move |_, request| Reply::object(request, &body, "e1")).await;
        let location = format!("s3://bucket/the/app.tgz{query}");
        let mut command = Programs::built().local.command(["-t", "tgz", "-l", &location, "-c"]);
        command.arg(machine.path("conf.yml")).env("AWS_ENDPOINT_URL_S3", &stub.endpoint);
        command
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "key");
        // Another deployment's: what is inherited does not count.
        command.env("BUNDLE_VERSION", "inherited");
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(machine.log()[2..], [&noted[..], versions].concat());
    }
}

#[tokio::test]
async fn selinux_rules_are_added_as_aws_adds_them_and_removed_by_the_next_install_which_needs_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("not tried: only root can put tools of its own in the place of the system's");
        return;
    }
    let case = Case {
        bundle: &[("d/g", "deep"), ("d/h", "deeper")],
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n\
                  - {object: @/app/g, context: {name: system_u, type: httpd_sys_content_t, range: \"s0-s1:c0.c5\"}}\n\
                  - {object: @/app/h, context: {type: etc_t}}\n",
        ..PLAIN
    };
    let machine = Machine::of(&case);
    let note = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >> {}\n", machine.path("noted").display());
    bundle::write(&machine.path("tools"), &[("semanage", &note), ("restorecon", &note)]);
    let deploy = async || {
        let local = Programs::built().local.command::<&str>([]).as_std().get_program().to_owned();
        let mut command = Program::at("unshare").command(["--mount", "/bin/sh", "-c"]);
        command.arg("mount --bind \"$0\" /usr/sbin && exec \"$@\"").arg(machine.path("tools")).arg(local);
        command.arg("-l").arg(machine.path("bundle")).arg("-c").arg(machine.path("conf.yml"));
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        let noted = fs::read_to_string(machine.path("noted")).unwrap();
        fs::remove_file(machine.path("noted")).unwrap();
        noted.replace(&machine.host(), "@")
    };
    let added = "semanage fcontext -a -s system_u -t httpd_sys_content_t -r s0-s1:c0.c5 @/app/g\nrestorecon -v @/app/g\n\
                 semanage fcontext -a -t etc_t @/app/h\nrestorecon -v @/app/h\n";
    assert_eq!(deploy().await, added);
    assert_eq!(deploy().await, added, "a rule that stays is set again, and never missing in between");
    let appspec = machine.path("bundle/appspec.yml");
    let text = fs::read_to_string(&appspec).unwrap();
    fs::write(&appspec, text.split("permissions:").next().unwrap()).unwrap();
    assert_eq!(deploy().await, "semanage fcontext -d @/app/g\nsemanage fcontext -d @/app/h\n");
}
