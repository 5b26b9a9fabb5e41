//! `codedeploy-local` as a person uses it: real bundles, real scripts, a real S3 server.

use std::fs;
use std::path::Path;

use codedeploy_tests::bucket::Bucket;
use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::{bundle, tree};

use super::machine::{DEFAULT_ORDER, Machine, ran};

#[tokio::test]
async fn every_kind_of_bundle_leaves_the_same_files() {
    let mut trees = Vec::new();
    for kind in ["directory", "zip", "tar", "tgz"] {
        let machine = Machine::new();
        let revision = machine.revision("one");
        let bytes = match kind {
            "zip" => bundle::zip(&revision),
            "tar" => bundle::tar(&revision),
            "tgz" => bundle::tgz(&revision),
            _ => Vec::new(),
        };
        let file = machine.path("bundle");
        fs::write(&file, bytes).unwrap();
        let location = if kind == "directory" { revision } else { file };
        let ran = machine
            .deploy(&["-t", kind, "-l", location.to_str().unwrap()])
            .await;
        assert!(ran.succeeded, "{kind}: {}", ran.everything());
        assert_eq!(
            ran.stdout.lines().last(),
            Some("AppSpec file valid. Local deployment successful")
        );
        let first = ran.stdout.lines().next().unwrap();
        let folder = Path::new(first.split_whitespace().last().unwrap());
        assert!(
            folder.starts_with(machine.path("root/default-local-deployment-group")),
            "{first}"
        );
        assert!(
            folder.join("deployment-archive/appspec.yml").is_file(),
            "{first}"
        );
        trees.push(tree::listing(Path::new(&machine.app())));
    }
    assert!(trees[0].contains("deep/er/page.html"), "{}", trees[0]);
    assert!(trees.iter().all(|tree| *tree == trees[0]), "{trees:#?}");
}

#[tokio::test]
async fn events_run_in_their_order_and_the_first_deployment_has_nothing_to_stop() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let location = revision.to_str().unwrap();
    let ran = machine.deploy(&["-l", location]).await;
    assert_eq!(ran.events(), DEFAULT_ORDER);
    let noted = || {
        fs::read_to_string(machine.path("events"))
            .unwrap_or_default()
            .replace('\n', " ")
    };
    assert_eq!(
        noted(),
        "BeforeInstall AfterInstall ApplicationStart ValidateService BeforeAllowTraffic AfterAllowTraffic "
    );

    fs::remove_file(machine.path("events")).unwrap();
    assert!(machine.deploy(&["-l", location]).await.succeeded);
    assert!(
        noted().starts_with("BeforeBlockTraffic AfterBlockTraffic ApplicationStop BeforeInstall "),
        "{}",
        noted()
    );

    fs::remove_file(machine.path("events")).unwrap();
    let ran = machine
        .deploy(&["-l", location, "-e", "ApplicationStart,AfterInstall"])
        .await;
    assert_eq!(
        ran.events(),
        [
            "DownloadBundle",
            "Install",
            "ApplicationStart",
            "AfterInstall"
        ]
    );
    assert_eq!(noted(), "ApplicationStart AfterInstall ");
}

#[tokio::test]
async fn a_custom_event_runs_when_the_appspec_defines_it_and_is_an_error_otherwise() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let location = revision.to_str().unwrap();
    let arguments = ["-l", location, "-e", "DownloadBundle,Install,WarmUp"];
    let ran = machine.deploy(&arguments).await;
    assert!(
        !ran.succeeded && ran.everything().contains("WarmUp"),
        "{}",
        ran.everything()
    );

    let appspec = revision.join("appspec.yml");
    let text = fs::read_to_string(&appspec).unwrap() + "  WarmUp:\n    - location: note.sh\n";
    fs::write(&appspec, text).unwrap();
    let ran = machine.deploy(&arguments).await;
    assert!(ran.succeeded, "{}", ran.everything());
    assert_eq!(
        fs::read_to_string(machine.path("events")).unwrap(),
        "WarmUp\n"
    );
}

#[tokio::test]
async fn a_failing_script_is_named_with_its_last_lines_and_where_the_log_is() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    bundle::write(
        &revision,
        &[(
            "note.sh",
            "#!/bin/sh\necho fine\necho 'disk \"x\" is full' >&2\nexit 7\n",
        )],
    );
    let ran = machine.deploy(&["-l", revision.to_str().unwrap()]).await;
    assert!(!ran.succeeded);
    assert_eq!(ran.events().last(), Some(&"BeforeInstall"));
    for expected in [
        "failed at BeforeInstall in note.sh",
        "failed with exit code 7",
        "[stdout]fine",
        "[stderr]disk \"x\" is full",
    ] {
        assert!(
            ran.stdout.contains(expected),
            "{expected} not in\n{}",
            ran.stdout
        );
    }
    let log = ran
        .stdout
        .split_whitespace()
        .find(|word| word.ends_with("logs/scripts.log"))
        .unwrap();
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .contains("[stderr]disk \"x\" is full")
    );
    assert!(!Path::new(&machine.app()).exists(), "nothing was installed");
}

#[tokio::test]
async fn a_new_revision_replaces_the_last_one_and_leaves_other_files_alone() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let location = revision.to_str().unwrap().to_owned();
    assert!(machine.deploy(&["-l", &location]).await.succeeded);
    fs::write(machine.path("app/operator.txt"), "mine").unwrap();

    machine.revision("two");
    fs::remove_dir_all(revision.join("site/deep")).unwrap();
    let ran = machine.deploy(&["-l", &location]).await;
    assert!(ran.succeeded, "{}", ran.everything());
    assert_eq!(
        fs::read_to_string(machine.path("app/index.html")).unwrap(),
        "two"
    );
    assert_eq!(
        fs::read_to_string(machine.path("app/operator.txt")).unwrap(),
        "mine"
    );
    assert!(!machine.path("app/deep").exists());
}

#[tokio::test]
async fn a_file_that_was_there_decides_as_it_is_told() {
    for (behavior, succeeds, content) in [
        ("DISALLOW", false, "mine"),
        ("retain", true, "mine"),
        ("OVERWRITE", true, "one"),
    ] {
        let machine = Machine::new();
        let revision = machine.revision("one");
        fs::create_dir(machine.path("app")).unwrap();
        fs::write(machine.path("app/index.html"), "mine").unwrap();
        let ran = machine
            .deploy(&["-l", revision.to_str().unwrap(), "-b", behavior])
            .await;
        assert_eq!(ran.succeeded, succeeds, "{behavior}: {}", ran.everything());
        assert_eq!(
            fs::read_to_string(machine.path("app/index.html")).unwrap(),
            content,
            "{behavior}"
        );
        if !succeeds {
            assert!(
                ran.stdout.contains("index.html: a file is there already"),
                "{}",
                ran.stdout
            );
            assert!(!machine.path("app/deep").exists(), "nothing was changed");
        }
    }
}

#[tokio::test]
async fn all_problems_of_an_appspec_are_told_with_line_and_column() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let broken = "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: relative\npermissions:\n  - object: /x\n    mode: 0o644\n";
    bundle::write(&revision, &[("appspec.yml", broken)]);
    let ran = machine.deploy(&["-l", revision.to_str().unwrap()]).await;
    assert!(!ran.succeeded);
    for expected in [
        "line 5, column 18: files[0].destination",
        "line 8, column 11: permissions[0].mode",
    ] {
        assert!(
            ran.stdout.contains(expected),
            "{expected} not in\n{}",
            ran.stdout
        );
    }
}

#[tokio::test]
async fn a_hostile_bundle_is_refused_by_the_name_of_its_entry() {
    let machine = Machine::new();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive
        .start_file(
            "../../../../escaped",
            zip::write::SimpleFileOptions::default(),
        )
        .unwrap();
    fs::write(
        machine.path("evil.zip"),
        archive.finish().unwrap().into_inner(),
    )
    .unwrap();
    let before = tree::listing(machine.folder.path());
    let ran = machine
        .deploy(&[
            "-t",
            "zip",
            "-l",
            machine.path("evil.zip").to_str().unwrap(),
        ])
        .await;
    assert!(
        !ran.succeeded && ran.stdout.contains("../../../../escaped"),
        "{}",
        ran.stdout
    );
    let after = tree::listing(machine.folder.path());
    let outside: Vec<&str> = after
        .lines()
        .filter(|line| !before.contains(line) && !line.starts_with("root/"))
        .collect();
    assert_eq!(outside, Vec::<&str>::new());
}

#[tokio::test]
async fn a_revision_in_s3_is_fetched_in_the_version_and_with_the_etag_that_are_named() {
    let machine = Machine::new();
    let bucket = Bucket::versioned(machine.folder.path(), "revisions").await;
    let one = bucket
        .put("app.tgz", bundle::tgz(&machine.revision("one")))
        .await;
    let two = bucket
        .put("app.tgz", bundle::tgz(&machine.revision("two")))
        .await;
    let deploy = async |query: &str| {
        let location = format!("s3://revisions/app.tgz{query}");
        let configuration = machine.path("conf.yml");
        let mut command = Programs::built()
            .local
            .command(["-t", "tgz", "-l", &location, "-c"]);
        command
            .arg(configuration)
            .env("AWS_ENDPOINT_URL_S3", &bucket.endpoint)
            .env("AWS_REGION", "us-east-1");
        command
            .env("AWS_ACCESS_KEY_ID", "person")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        ran(command.output().await.unwrap())
    };
    let page = || fs::read_to_string(machine.path("app/index.html")).unwrap();
    let newest = deploy("").await;
    assert!(newest.succeeded, "{}", newest.everything());
    assert_eq!(page(), "two");
    let earlier = deploy(&format!(
        "?versionId={}&etag={}",
        one.version.unwrap(),
        one.etag
    ))
    .await;
    assert!(earlier.succeeded, "{}", earlier.everything());
    assert_eq!(page(), "one");
    // In the form that S3 and AWS's documentation use.
    let quoted = deploy(&format!("?etag=%22{}%22", two.etag)).await;
    assert!(quoted.succeeded, "{}", quoted.everything());
    assert_eq!(page(), "two");
    let changed = deploy(&format!("?etag=%22{}%22", one.etag)).await;
    assert!(
        !changed.succeeded && changed.stdout.contains(&two.etag),
        "{}",
        changed.stdout
    );
    let changed = deploy(&format!("?etag={}", one.etag)).await;
    assert!(
        !changed.succeeded
            && changed.stdout.contains(&one.etag)
            && changed.stdout.contains(&two.etag),
        "{}",
        changed.stdout
    );
    let missing = deploy("?versionId=nothing").await;
    assert!(
        !missing.succeeded && missing.stdout.contains("s3://revisions/app.tgz"),
        "{}",
        missing.stdout
    );
    bucket.stop().await;
}

#[tokio::test]
async fn a_person_without_configuration_and_root_deploys_into_their_own_folders() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    // In a place where everybody may read and execute it, with a folder of their own.
    let program = machine.path("codedeploy-local");
    let built = Programs::built()
        .local
        .command::<&str>([])
        .as_std()
        .get_program()
        .to_owned();
    // In a process of its own: a file that a child of another test holds open for writing cannot be
    // executed.
    let copied = Program::at("cp")
        .command([built.as_os_str(), program.as_os_str()])
        .status()
        .await;
    assert!(copied.unwrap().success());
    let home = machine.path("home");
    fs::create_dir(&home).unwrap();
    let appspec = fs::read_to_string(revision.join("appspec.yml"))
        .unwrap()
        .replace(&machine.app(), &format!("{}/app", home.display()));
    let appspec = appspec.split("hooks:").next().unwrap().to_owned()
        + "hooks:\n  AfterInstall:\n    - location: id.sh\n";
    bundle::write(
        &revision,
        &[
            ("appspec.yml", &appspec),
            ("id.sh", "#!/bin/sh\necho running as $(id -u)\nexit 9\n"),
        ],
    );

    let root = nix::unistd::geteuid().is_root();
    let mut command = if root {
        nix::unistd::chown(&home, Some(65534.into()), Some(65534.into())).unwrap();
        let mut command =
            Program::at("setpriv").command(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program);
        command
    } else {
        Program::at(&program).command::<&str>([])
    };
    command
        .args(["-l", revision.to_str().unwrap()])
        .env("HOME", &home)
        .env_remove("XDG_STATE_HOME")
        .current_dir("/");
    let ran = ran(command.output().await.unwrap());
    let uid = if root {
        "65534".to_owned()
    } else {
        nix::unistd::getuid().to_string()
    };
    assert!(
        ran.stdout.contains(&format!("[stdout]running as {uid}")),
        "{}",
        ran.everything()
    );
    assert!(
        ran.stdout.contains("failed with exit code 9"),
        "{}",
        ran.everything()
    );
    assert!(
        home.join(".local/state/codedeploy/deployment-root/default-local-deployment-group")
            .is_dir()
    );
    assert_eq!(
        fs::read_to_string(home.join("app/index.html")).unwrap(),
        "one"
    );
}

#[tokio::test]
async fn misuse_is_explained_before_anything_happens() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let folder = revision.to_str().unwrap();
    for (arguments, expected) in [
        (vec!["-t", "rar"], "expected tgz, tar, zip or directory"),
        (vec!["-l", "/nowhere/at/all"], "/nowhere/at/all"),
        (
            vec!["-l", "http://example.com/app.zip", "-t", "zip"],
            "https://",
        ),
        (
            vec!["-e", "BeforeInstall,DownloadBundle"],
            "BeforeInstall cannot come before",
        ),
        (vec!["-b", "MAYBE"], "MAYBE"),
        (
            vec!["-l", folder, "-A", "other.yml"],
            "has no AppSpec file other.yml",
        ),
        (vec!["-l", ""], "--bundle-location"),
        (vec!["-l", folder, "-g", "a/b"], "cannot name a folder"),
        (vec!["-l", folder, "-A", "../other.yml"], "other.yml"),
    ] {
        let ran = machine.deploy(&arguments).await;
        assert!(
            !ran.succeeded && ran.stderr.contains(expected),
            "{arguments:?}: {}",
            ran.everything()
        );
    }
    assert!(!machine.path("root").exists());
}

#[tokio::test]
async fn a_deployment_that_nobody_watches_any_more_is_finished() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    for output in ["/dev/full", "a pipe that nobody reads"] {
        let _ = fs::remove_dir_all(machine.path("app"));
        let configuration = machine.path("conf.yml");
        let mut command = Programs::built().local.command([
            "-l",
            revision.to_str().unwrap(),
            "-b",
            "OVERWRITE",
            "-c",
        ]);
        command.arg(configuration);
        let status = if output == "/dev/full" {
            let full = || fs::File::options().write(true).open(output).unwrap();
            command
                .stdout(full())
                .stderr(full())
                .status()
                .await
                .unwrap()
        } else {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            command
                .stdout(writer.try_clone().unwrap())
                .stderr(writer)
                .status()
                .await
                .unwrap()
        };
        assert!(status.success(), "{output}: {status}");
        assert_eq!(
            fs::read_to_string(machine.path("app/index.html")).unwrap(),
            "one",
            "{output}"
        );
    }
}

#[tokio::test]
async fn the_current_folder_is_deployed_under_an_id_of_its_own_when_nothing_else_is_said() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut command = Programs::built()
            .local
            .command(["--agent-configuration-file"]);
        command.arg(machine.path("conf.yml")).current_dir(&revision);
        let ran = ran(command.output().await.unwrap());
        assert!(ran.succeeded, "{}", ran.everything());
        let id = ran
            .stdout
            .lines()
            .next()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        let word = id
            .strip_prefix("d-")
            .and_then(|id| id.strip_suffix("-local"))
            .unwrap();
        assert!(
            word.len() == 9
                && word
                    .bytes()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()),
            "{id}"
        );
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn help_and_version_have_their_short_names() {
    let machine = Machine::new();
    for (option, expected) in [
        ("-h", "--file-exists-behavior"),
        ("--help", "--appspec-filename"),
        ("-v", "codedeploy-local "),
        ("--version", "codedeploy-local "),
    ] {
        let ran = machine.deploy(&[option]).await;
        assert!(
            ran.succeeded && ran.stdout.contains(expected),
            "{option}: {}",
            ran.everything()
        );
    }
    assert!(!machine.path("root").exists());
}
