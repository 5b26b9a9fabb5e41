//! Blue/green on one host, with `codedeploy-local`: two slots, and a link that is switched.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use codedeploy_tests::bundle;
use codedeploy_tests::pair::Found;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::{Blow, Report, Strike};
use codedeploy_tests::sweep::{self, Tally};

const GROUP: &str = "default-local-deployment-group";

/// A machine with one application in slots. Each script writes a line with the version, its event
/// and its slots into `notes`.
pub(super) struct Bench {
    folder: tempfile::TempDir,
}

/// A revision.
pub(super) struct Revision<'a> {
    version: &'a str,
    /// Further lines of the strategy; `None` without one.
    strategy: Option<&'a str>,
    /// The event whose script fails.
    fails: Option<&'a str>,
    /// Whether it has a file outside of the slots.
    elsewhere: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    fn with(configuration: &str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let text = format!(
            "root_dir: {folder}/root\nlog_dir: {folder}/log\npid_dir: {folder}/run\n{configuration}\n",
            folder = bench.folder.path().display(),
        );
        fs::write(bench.path("conf.yml"), text).unwrap();
        bench
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The scripts' notes since the last call.
    fn notes(&self) -> String {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        let _ = fs::remove_file(self.path("notes"));
        notes.replace(&format!("{}/", self.folder.path().display()), "")
    }

    /// The version that the link leads to.
    fn serves(&self) -> String {
        fs::read_to_string(self.path("app/version")).unwrap_or_default()
    }

    /// The slot that the link leads to.
    fn slot(&self) -> String {
        let target = fs::read_link(self.path("app")).unwrap_or_default();
        target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(super) async fn deploy(&self, revision: &Revision<'_>) -> (bool, String) {
        let location = self.write(revision);
        self.local(&["--bundle-location", &location]).await
    }

    /// Deploys while `codedeploy-local` is killed at a system call.
    async fn struck(&self, revision: &Revision<'_>, strike: Strike) -> Report {
        let location = self.write(revision);
        let configuration = self.path("conf.yml");
        let arguments = ["--bundle-location", &location, "-c"].map(OsString::from);
        let all = [&arguments[..], &[configuration.into()]].concat();
        strike.run(&Programs::built().local, &all).await
    }

    /// Writes a revision; returns its folder.
    fn write(&self, revision: &Revision<'_>) -> String {
        let Revision { version, .. } = revision;
        let folder = self.path("revision");
        let _ = fs::remove_dir_all(&folder);
        let root = self.folder.path().display();
        let mut appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - {{source: site, destination: {root}/app}}\n"
        );
        if revision.elsewhere {
            appspec += &format!("  - {{source: etc, destination: {root}/etc}}\n");
        }
        if let Some(more) = revision.strategy {
            appspec += &format!(
                "strategy:\n  type: blue_green\n  link: {root}/app\n  ports: [18001, 18002]\n  drain: 0\n{more}"
            );
        }
        appspec += "hooks:\n";
        let mut files = Vec::new();
        for event in [
            "ApplicationStop",
            "BeforeInstall",
            "AfterInstall",
            "ApplicationStart",
            "ValidateService",
            "AfterAllowTraffic",
        ] {
            appspec += &format!("  {event}:\n    - location: {event}.sh\n");
            let fails = if revision.fails == Some(event) { 3 } else { 0 };
            let script = format!(
                "#!/bin/sh\necho \"{version} $LIFECYCLE_EVENT ${{SLOT:-none}}:${{SLOT_PORT:-}} $SLOT_DIR live \
                 ${{LIVE_SLOT_DIR:-none}}:${{LIVE_SLOT_PORT:-}}\" >> {root}/notes\nexit {fails}\n"
            );
            files.push((format!("{event}.sh"), script));
        }
        files.push(("appspec.yml".to_owned(), appspec));
        files.push(("site/version".to_owned(), (*version).to_owned()));
        files.push((format!("site/only/{version}"), String::new()));
        files.push(("etc/app.conf".to_owned(), (*version).to_owned()));
        files.push((
            "traffic.sh".to_owned(),
            format!(
                "#!/bin/sh\necho \"traffic ${{FROM_SLOT:-none}} $TO_SLOT:$TO_PORT link $(readlink {root}/app)\" >> {root}/notes\n\
                 test ! -e {root}/jam\n"
            ),
        ));
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        bundle::write(&folder, &files);
        folder.to_str().unwrap().to_owned()
    }

    async fn local(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [arguments, &["-c", configuration.to_str().unwrap()]].concat();
        let output = Programs::built().local.output(all).await;
        (output.status.success(), texts(&output))
    }

    async fn agent(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [
            arguments,
            &["--config-file", configuration.to_str().unwrap()],
        ]
        .concat();
        let output = Programs::built().agent.output(all).await;
        (output.status.success(), texts(&output))
    }

    /// Whether journals and temporary names are gone.
    fn leaves_nothing_behind(&self) -> Result<(), String> {
        let journal = |name: &String| name.contains("journal") || name.contains("jsonl");
        let records = self.names("root/deployment-instructions").into_iter();
        let mut left = records.filter(journal).collect::<Vec<_>>();
        left.extend(
            self.names("")
                .into_iter()
                .filter(|name| name.starts_with('.')),
        );
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left behind: {left:?}"))
        }
    }

    async fn roll_back(&self) -> (bool, String) {
        self.agent(&["rollback", "--deployment-group", GROUP]).await
    }

    #[track_caller]
    pub(super) fn expect(&self, slot: &str, version: &str) {
        assert_eq!((self.slot(), self.serves()), (slot.into(), version.into()));
    }
}

/// A revision in slots.
pub(super) fn revision(version: &str) -> Revision<'_> {
    Revision {
        version,
        strategy: Some(""),
        fails: None,
        elsewhere: false,
    }
}

fn texts(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

#[track_caller]
pub(super) fn succeeds((succeeded, said): (bool, String)) -> String {
    assert!(succeeded, "{said}");
    said
}

#[track_caller]
pub(super) fn fails((succeeded, said): (bool, String)) -> String {
    assert!(!succeeded, "{said}");
    said
}

#[tokio::test]
async fn each_deployment_fills_the_idle_slot_and_the_old_revision_stops_last() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    bench.expect("blue", "v1");
    assert_eq!(
        bench.notes(),
        "v1 BeforeInstall blue:18001 app.slots/blue live none:\n\
         v1 AfterInstall blue:18001 app.slots/blue live none:\n\
         v1 ApplicationStart blue:18001 app.slots/blue live none:\n\
         v1 ValidateService blue:18001 app.slots/blue live none:\n\
         v1 AfterAllowTraffic blue:18001 app.slots/blue live app.slots/blue:18001\n"
    );
    succeeds(bench.deploy(&revision("v2")).await);
    bench.expect("green", "v2");
    assert_eq!(
        bench.notes(),
        "v2 BeforeInstall green:18002 app.slots/green live app.slots/blue:18001\n\
         v2 AfterInstall green:18002 app.slots/green live app.slots/blue:18001\n\
         v2 ApplicationStart green:18002 app.slots/green live app.slots/blue:18001\n\
         v2 ValidateService green:18002 app.slots/green live app.slots/blue:18001\n\
         v1 ApplicationStop blue:18001 app.slots/blue live app.slots/green:18002\n\
         v2 AfterAllowTraffic green:18002 app.slots/green live app.slots/green:18002\n"
    );
    assert_eq!(bench.names("app.slots/blue/only"), ["v1"]);
    succeeds(bench.deploy(&revision("v3")).await);
    bench.expect("blue", "v3");
    assert_eq!(
        bench.names("app.slots/blue/only"),
        ["v3"],
        "v1 is cleaned up"
    );
    assert_eq!(bench.names("app.slots/green/only"), ["v2"], "v2 is kept");
}

#[tokio::test]
async fn a_failure_at_any_event_leaves_the_old_revision_alone() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    let inode = fs::symlink_metadata(bench.path("app")).unwrap().ino();
    for event in [
        "BeforeInstall",
        "AfterInstall",
        "ApplicationStart",
        "ValidateService",
    ] {
        bench.notes();
        let failing = Revision {
            fails: Some(event),
            elsewhere: true,
            ..revision("v2")
        };
        let said = fails(bench.deploy(&failing).await);
        assert!(said.contains(&format!("failed at {event}")), "{said}");
        bench.expect("blue", "v1");
        assert_eq!(
            fs::symlink_metadata(bench.path("app")).unwrap().ino(),
            inode
        );
        let notes = bench.notes();
        assert!(!notes.contains("v1"), "{notes}");
        if event != "BeforeInstall" {
            let last = notes.lines().last().unwrap();
            assert!(
                last.starts_with("v2 ApplicationStop green:18002"),
                "{notes}"
            );
        }
        assert_eq!(bench.names("app.slots/green"), [""; 0], "{event}");
        assert_eq!(bench.names("etc"), [""; 0], "{event}");
    }
    succeeds(bench.deploy(&revision("v3")).await);
    bench.expect("green", "v3");
}

#[tokio::test]
async fn traffic_moves_before_the_link_and_a_jam_takes_everything_back() {
    let bench = Bench::new();
    let with_traffic = |version| Revision {
        strategy: Some("  traffic:\n    command: {location: traffic.sh}\n"),
        ..revision(version)
    };
    succeeds(bench.deploy(&with_traffic("v1")).await);
    bench.notes();
    succeeds(bench.deploy(&with_traffic("v2")).await);
    let notes = bench.notes();
    assert!(
        notes.contains("\ntraffic blue green:18002 link app.slots/blue\nv1 ApplicationStop"),
        "{notes}"
    );
    fs::write(bench.path("jam"), "").unwrap();
    let said = fails(bench.deploy(&with_traffic("v3")).await);
    assert!(
        said.contains("traffic was not moved to the slot blue"),
        "{said}"
    );
    bench.expect("green", "v2");
    assert_eq!(bench.names("app.slots/blue/only"), ["v1"]);
    let notes = bench.notes();
    assert!(
        notes.ends_with(
            "traffic green blue:18001 link app.slots/green\ntraffic blue green:18002 link app.slots/green\n\
             v3 ApplicationStop blue:18001 app.slots/blue live app.slots/green:18002\n"
        ),
        "{notes}"
    );
    fs::remove_file(bench.path("jam")).unwrap();
    succeeds(bench.deploy(&with_traffic("v4")).await);
    bench.expect("blue", "v4");
}

#[tokio::test]
async fn a_folder_becomes_the_old_slot_at_the_first_switch_and_comes_back_with_a_rollback() {
    let bench = Bench::new();
    let in_place = Revision {
        strategy: None,
        ..revision("v0")
    };
    succeeds(bench.deploy(&in_place).await);
    fs::write(bench.path("app/theirs"), "theirs").unwrap();
    let inode = fs::metadata(bench.path("app")).unwrap().ino();
    let failing = Revision {
        fails: Some("ValidateService"),
        ..revision("v1")
    };
    let said = fails(bench.deploy(&failing).await);
    assert!(
        said.contains("its ApplicationStart succeeded"),
        "it was stopped: {said}"
    );
    assert_eq!((bench.slot(), bench.serves()), (String::new(), "v0".into()));

    bench.notes();
    succeeds(bench.deploy(&revision("v1")).await);
    bench.expect("green", "v1");
    let notes = bench.notes();
    assert!(notes.starts_with("v0 ApplicationStop none"), "{notes}");
    assert!(
        notes.contains("v1 ValidateService green:18002 app.slots/green live app:\n"),
        "{notes}"
    );
    assert_eq!(
        fs::metadata(bench.path("app.slots/blue")).unwrap().ino(),
        inode
    );

    succeeds(bench.roll_back().await);
    assert_eq!((bench.slot(), bench.serves()), (String::new(), "v0".into()));
    assert_eq!(fs::metadata(bench.path("app")).unwrap().ino(), inode);
    let notes = bench.notes();
    assert!(
        notes.ends_with(
            "v0 ApplicationStart none:  live none:\nv0 ValidateService none:  live none:\n"
        ),
        "{notes}"
    );

    succeeds(bench.deploy(&revision("v2")).await);
    succeeds(bench.deploy(&revision("v3")).await);
    bench.expect("blue", "v3");
    assert_eq!(bench.names("app"), ["only", "theirs", "version"]);
    assert_eq!(bench.names("app/only"), ["v3"]);
}

#[tokio::test]
async fn a_rollback_is_the_switch_back_and_touches_no_file() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    succeeds(bench.deploy(&revision("v2")).await);
    let times = || {
        ["blue", "green"].map(|slot| {
            let file = bench.path(&format!("app.slots/{slot}/version"));
            let metadata = fs::metadata(file).unwrap();
            (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        })
    };
    let before = times();
    bench.notes();
    let said = succeeds(bench.roll_back().await);
    assert!(said.contains("serves, in the slot blue"), "{said}");
    bench.expect("blue", "v1");
    assert_eq!(times(), before);
    assert_eq!(
        bench.notes(),
        "v1 ApplicationStart blue:18001 app.slots/blue live app.slots/green:18002\n\
         v1 ValidateService blue:18001 app.slots/blue live app.slots/green:18002\n\
         v2 ApplicationStop green:18002 app.slots/green live app.slots/blue:18001\n"
    );
    succeeds(bench.deploy(&revision("v3")).await);
    bench.expect("green", "v3");
    assert_eq!(bench.names("app.slots/green/only"), ["v3"]);
}

#[tokio::test]
async fn a_rollback_restores_files_outside_of_the_slots() {
    let bench = Bench::with("rollback_on_failure: true");
    let with_files = |version| Revision {
        elsewhere: true,
        ..revision(version)
    };
    succeeds(bench.deploy(&with_files("v1")).await);
    let late = Revision {
        fails: Some("AfterAllowTraffic"),
        ..with_files("v2")
    };
    let said = fails(bench.deploy(&late).await);
    assert!(said.contains("serves, in the slot blue"), "{said}");
    bench.expect("blue", "v1");
    assert_eq!(
        fs::read_to_string(bench.path("etc/app.conf")).unwrap(),
        "v1"
    );
    succeeds(bench.deploy(&with_files("v3")).await);
    bench.expect("green", "v3");
}

#[tokio::test]
async fn a_failing_stop_of_the_old_revision_is_a_warning() {
    let bench = Bench::new();
    let stubborn = Revision {
        fails: Some("ApplicationStop"),
        ..revision("v1")
    };
    succeeds(bench.deploy(&stubborn).await);
    let said = succeeds(bench.deploy(&revision("v2")).await);
    assert!(
        said.contains("the new revision serves, but ApplicationStop of the old one"),
        "{said}"
    );
    bench.expect("green", "v2");
}

#[tokio::test]
async fn revisions_without_the_key_are_installed_in_the_serving_slot_and_slots_work_again_after_them()
 {
    let bench = Bench::new();
    let in_place = |version| Revision {
        strategy: None,
        ..revision(version)
    };
    succeeds(bench.deploy(&revision("v1")).await);
    succeeds(bench.deploy(&revision("v2")).await);
    bench.notes();
    succeeds(bench.deploy(&in_place("v3")).await);
    bench.expect("green", "v3");
    assert_eq!(bench.names("app/only"), ["v3"]);
    let notes = bench.notes();
    assert!(
        notes.starts_with(
            "v3 BeforeInstall none:  live none:\nv2 ApplicationStop green:18002 app.slots/green live app.slots/green:18002\nv3 AfterInstall"
        ),
        "{notes}"
    );
    succeeds(bench.roll_back().await);
    bench.expect("green", "v2");
    assert_eq!(bench.names("app.slots/blue/only"), ["v1"]);
    let notes = bench.notes();
    assert!(notes.contains("v2 ApplicationStart green:18002"), "{notes}");
    succeeds(bench.deploy(&in_place("v4")).await);
    succeeds(bench.deploy(&in_place("v5")).await);
    bench.expect("green", "v5");
    succeeds(bench.deploy(&revision("v6")).await);
    bench.expect("blue", "v6");
    assert_eq!(bench.names("app.slots/green/only"), ["v5"]);
    succeeds(bench.deploy(&revision("v7")).await);
    bench.expect("green", "v7");
    assert_eq!(bench.names("app/only"), ["v7"]);
}

#[tokio::test]
async fn with_one_slot_to_keep_the_old_one_is_emptied() {
    let bench = Bench::new();
    let lean = |version| Revision {
        strategy: Some("  keep: 1\n"),
        ..revision(version)
    };
    succeeds(bench.deploy(&lean("v1")).await);
    succeeds(bench.deploy(&lean("v2")).await);
    bench.expect("green", "v2");
    assert_eq!(bench.names("app.slots/blue"), [""; 0]);
    let said = fails(bench.roll_back().await);
    assert!(
        said.contains("the slot blue was emptied after the switch (keep: 1)"),
        "{said}"
    );
    bench.expect("green", "v2");
    succeeds(bench.deploy(&lean("v3")).await);
    bench.expect("blue", "v3");
}

#[tokio::test]
async fn what_is_no_link_to_a_slot_is_refused_and_stays() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/etc", bench.path("app")).unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(
        said.contains("is a link to /etc, which is not a slot"),
        "{said}"
    );
    fs::remove_file(bench.path("app")).unwrap();
    fs::write(bench.path("app"), "").unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(said.contains("is neither a link nor a folder"), "{said}");
    fs::remove_file(bench.path("app")).unwrap();
    std::os::unix::fs::symlink("/etc", bench.path("app.slots")).unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(said.contains("app.slots is not a folder"), "{said}");
    fs::remove_file(bench.path("app.slots")).unwrap();
    let elsewhere = Revision {
        strategy: Some("  slots: /dev/shm/codedeploy-test-slots\n"),
        ..revision("v1")
    };
    let said = fails(bench.deploy(&elsewhere).await);
    assert!(said.contains("is on another file system than"), "{said}");
    succeeds(bench.deploy(&revision("v1")).await);
    bench.expect("blue", "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_link_finds_a_whole_revision_at_any_time() {
    let bench = Bench::new();
    let in_place = Revision {
        strategy: None,
        ..revision("v0")
    };
    succeeds(bench.deploy(&in_place).await);
    let (file, stop) = (bench.path("app/version"), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        let mut reads = 0_usize;
        while !stopped.load(Ordering::Relaxed) {
            let version = fs::read_to_string(&file).expect("the link is never absent");
            assert!(version.starts_with('v'), "{version:?}");
            reads += 1;
        }
        reads
    });
    succeeds(bench.deploy(&revision("v1")).await);
    succeeds(bench.deploy(&revision("v2")).await);
    let failing = Revision {
        fails: Some("ValidateService"),
        ..revision("v3")
    };
    fails(bench.deploy(&failing).await);
    succeeds(bench.roll_back().await);
    bench.expect("green", "v1");
    succeeds(bench.deploy(&revision("v4")).await);
    stop.store(true, Ordering::Relaxed);
    let reads = reader.join().expect("no read failed");
    assert!(reads > 1000, "{reads}");
    bench.expect("blue", "v4");
}

#[tokio::test]
async fn a_port_that_somebody_else_has_fails_the_install() {
    let bench = Bench::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let strategy = format!("  ports: [{port}, 1]\n");
    let taken = Revision {
        strategy: Some(&strategy),
        ..revision("v1")
    };
    let said = fails(bench.deploy(&taken).await);
    assert!(
        said.contains(&format!("the port {port} of the slot blue is in use")),
        "{said}"
    );
    assert_eq!(bench.names("app.slots"), [""; 0]);
    drop(other);
    succeeds(bench.deploy(&taken).await);
    bench.expect("blue", "v1");
}

#[tokio::test]
async fn a_preview_shows_the_slot_and_changes_nothing() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    fails(
        bench
            .deploy(&Revision {
                fails: Some("AfterInstall"),
                ..revision("v2")
            })
            .await,
    );
    let folder = bench.path("revision");
    let said = succeeds(
        bench
            .local(&["plan", "--bundle-location", folder.to_str().unwrap()])
            .await,
    );
    assert!(said.contains("app.slots/green/version"), "{said}");
    bench.expect("blue", "v1");
    assert_eq!(bench.names("app.slots/green"), [""; 0]);
}

/// The numbers of the calls from the first one whose path contains `begins` to the end.
fn numbers(counted: &Report, begins: &str) -> Vec<usize> {
    let begin = counted
        .calls
        .iter()
        .position(|call| call.path.contains(begins));
    let begin = begin.unwrap_or_else(|| panic!("no {begins}: {}", counted.output)) + 1;
    sweep::points(counted, begin..=counted.calls.len(), 15)
}

/// Kills the deployment of `revision` after v1 at each point from the call that changes `begins` on.
/// Whatever was reached, one whole revision serves, and the next deployment works.
async fn killed(what: &str, revision: &Revision<'_>, begins: &str) {
    let first = Revision {
        strategy: revision.strategy,
        ..self::revision("v1")
    };
    let next = Revision {
        version: "v3",
        fails: None,
        ..*revision
    };
    let bench = Bench::new();
    succeeds(bench.deploy(&first).await);
    let counted = bench.struck(revision, Strike::COUNT).await;
    let tally = Tally::new(what);
    for number in numbers(&counted, begins) {
        let bench = Bench::new();
        succeeds(bench.deploy(&first).await);
        let strike = Strike(Some((number, Blow::Kill)));
        let report = bench.struck(revision, strike).await;
        let Some(call) = report.struck else {
            tally.missed();
            continue;
        };
        tally.dealt(&call.name);
        let point = format!("{number} {call}");
        let (served, files) = (bench.serves(), bench.names("app/only"));
        let found = match served.as_str() {
            "v1" if files == ["v1"] => Found::Old,
            "v2" if files == ["v2"] => Found::New,
            _ => Found::Mixed(format!("{served:?} with {files:?}")),
        };
        tally.found(&point, &found);
        let fails = revision.fails.is_some() && found == Found::New;
        let noticed = if fails {
            Err("it serves".into())
        } else {
            Ok(())
        };
        tally.expect(&point, noticed);
        let (succeeded, said) = bench.deploy(&next).await;
        let goes_on = succeeded && bench.serves() == "v3" && bench.names("app/only") == ["v3"];
        tally.expect(&point, if goes_on { Ok(()) } else { Err(said) });
        tally.expect(&point, bench.leaves_nothing_behind());
    }
    tally.conclude();
}

#[tokio::test]
async fn whoever_is_killed_in_a_switch_leaves_one_slot_that_serves() {
    let with_traffic = Revision {
        strategy: Some("  traffic:\n    command: {location: traffic.sh}\n"),
        ..revision("v2")
    };
    let what = "`codedeploy-local` killed while it switches slots";
    killed(what, &with_traffic, "-switch.jsonl").await;
}

#[tokio::test]
async fn whoever_is_killed_while_a_failed_deployment_leaves_its_slot_goes_unnoticed() {
    let failing = Revision {
        fails: Some("ValidateService"),
        elsewhere: true,
        ..revision("v2")
    };
    let what = "… while a failed deployment leaves its slot";
    killed(what, &failing, "-rollback.jsonl").await;
}

#[tokio::test]
async fn whoever_is_killed_while_a_slot_is_filled_goes_unnoticed() {
    let what = "… from its Install in a slot to the end";
    killed(what, &revision("v2"), "-journal.json").await;
}
