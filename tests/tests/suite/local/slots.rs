//! Blue/green on one host, with `codedeploy-local`: two slots, and a link that is switched.

mod bench;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bench::GROUP;
pub(crate) use bench::{Bench, Revision, fails, revision, succeeds};

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

#[tokio::test]
async fn a_second_deployment_group_cannot_have_the_same_link_or_slots() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    bench.notes();
    let location = bench.write(&revision("v2"));
    let other = ["--bundle-location", &location, "-g", "other"];
    let said = fails(bench.local(&other).await);
    assert!(
        said.contains("the deployment group default-local-deployment-group has its link"),
        "{said}"
    );
    bench.expect("blue", "v1");
    assert!(!bench.notes().contains("ApplicationStop"));
}

#[tokio::test]
async fn a_link_around_the_agents_own_folders_is_refused() {
    let bench = Bench::new();
    let folder = bench.path("");
    let text = format!(
        "root_dir: {0}/app/root\nlog_dir: {0}/log\npid_dir: {0}/run\n",
        folder.display()
    );
    fs::write(bench.path("conf.yml"), text).unwrap();
    let said = fails(bench.deploy(&revision("v1")).await);
    assert!(said.contains("one of the agent's own folders"), "{said}");
    assert!(bench.path("app/root").is_dir());
}

#[tokio::test]
async fn a_rollback_to_a_revision_that_cannot_be_read_changes_nothing() {
    let bench = Bench::new();
    succeeds(bench.deploy(&revision("v1")).await);
    let first = bench.path(&format!("root/{GROUP}"));
    let deployments: Vec<_> = fs::read_dir(first)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [first] = &deployments[..] else {
        panic!("{deployments:?}")
    };
    succeeds(bench.deploy(&revision("v2")).await);
    fs::remove_file(first.join("deployment-archive/appspec.yml")).unwrap();
    bench.notes();
    let said = fails(bench.roll_back().await);
    assert!(
        said.contains("the revision in the slot blue cannot be read"),
        "{said}"
    );
    bench.expect("green", "v2");
    assert_eq!(bench.notes(), "");
}
