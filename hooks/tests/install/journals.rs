//! Journals that were cut off or damaged: what was written is followed, and nothing is guessed.

use std::path::PathBuf;

use codedeploy_hooks::install::{self, JournalError, Kind, Phase, RecoverError, Recovery, Turn};

use crate::bed::{Bed, link, tree, write};

/// A host on which version 2 is installed over version 1, and the complete journal of that.
fn second_install() -> (Bed, Vec<u8>) {
    let mut bed = Bed::new();
    bed.revision(&[("a", "1"), ("gone", "1"), ("sub/x", "1")]);
    bed.install_all("app").unwrap();
    bed.deployment = "d-2".into();
    std::fs::create_dir_all(bed.deployment()).unwrap();
    bed.revision(&[("a", "2"), ("new", "2"), ("sub/x", "2")]);
    write(&bed.host("app/log"), "operator's");
    bed.install_all("app").unwrap();
    // The undo record of a deployment is its journal.
    let journal = std::fs::read(bed.deployment().join("undo.json")).unwrap();
    (bed, journal)
}

fn recover(bed: &Bed) -> Result<Recovery, RecoverError> {
    install::recover(&bed.records.journal, &bed.turn())
}

/// Everything but the records' folder, which the journal is in.
fn everything(bed: &Bed) -> crate::bed::Tree {
    let mut all = bed.tree();
    all.extend(
        tree(&bed.deployment())
            .into_iter()
            .map(|(path, seen)| (PathBuf::from("deployment").join(path), seen)),
    );
    all.retain(|path, _| !path.to_str().is_some_and(|path| path.contains("journal.json")));
    all
}

#[test]
fn a_journal_that_ends_before_it_was_prepared_undoes_nothing() {
    let (bed, journal) = second_install();
    let before = everything(&bed);
    let lines: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').collect();
    let prepared = lines.iter().position(|line| line.starts_with(b"{\"prepared\"")).unwrap();
    assert!(prepared > 4, "{}", String::from_utf8_lossy(&journal));
    for kept in 1..=prepared {
        for torn in [&b""[..], b"{\"cha", b"{\"prepared\":{\"changes\":", b"\0\0\0\0", b"\0\0\n"] {
            let text = [&lines[..kept].concat(), torn].concat();
            std::fs::write(&bed.records.journal, &text).unwrap();
            let unfinished = install::unfinished(&bed.records.journal).unwrap().unwrap();
            assert_eq!((unfinished.phase, unfinished.changes.len()), (Phase::Building, 0));
            let recovery = recover(&bed).unwrap();
            assert!(matches!(recovery, Recovery::RolledBack { .. }), "{kept} lines: {recovery:?}");
            assert_eq!(everything(&bed), before, "{kept} lines");
            assert!(!bed.records.journal.exists());
        }
    }
}

#[test]
fn a_committed_journal_is_completed_again_and_again() {
    let (bed, journal) = second_install();
    let before = everything(&bed);
    for _ in 0..2 {
        std::fs::write(&bed.records.journal, &journal).unwrap();
        let Recovery::RolledForward { deployment, summary, .. } = recover(&bed).unwrap() else {
            panic!("a committed Install stays");
        };
        assert_eq!(deployment, bed.deployment());
        assert_eq!((summary.created, summary.replaced, summary.removed), (1, 3, 1));
        assert_eq!(summary.warnings, [] as [&str; 0]);
        assert_eq!(
            bed.listing(),
            ["app/", "app/a 2", "app/log operator's", "app/new 2", "app/sub/", "app/sub/x 2"]
        );
        let differing = everything(&bed).into_iter().filter(|(path, seen)| before.get(path) != Some(seen));
        let differing: Vec<_> = differing.map(|(path, _)| path).collect();
        assert_eq!(differing, [PathBuf::from("deployment/undo.json")], "it is written again");
    }
    bed.restore().unwrap();
    assert_eq!(
        bed.listing(),
        ["app/", "app/a 1", "app/gone 1", "app/log operator's", "app/sub/", "app/sub/x 1"]
    );
}

#[test]
fn what_is_no_journal_is_set_aside_with_its_name_and_installs_go_on() {
    let (bed, journal) = second_install();
    let before = everything(&bed);
    let lines: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').collect();
    let mut flipped = journal.clone();
    flipped[lines[0].len()] = b'[';
    let noise: Vec<u8> = (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let without_a_change = [lines[0], &lines[2..].concat()].concat();
    let twice = [&journal[..], b"\"committed\"\n"].concat();
    let bad: [&[u8]; 9] =
        [b"", b"\n", b"{}\n", b"[1,2]\n", b"\xff\xfe\n", &noise, &flipped, &without_a_change, &twice];
    for text in bad {
        std::fs::write(&bed.records.journal, text).unwrap();
        assert!(install::unfinished(&bed.records.journal).is_err());
        let error = recover(&bed).unwrap_err();
        let RecoverError::SetAside { kept, .. } = &error else { panic!("{error:?}") };
        assert!(error.to_string().contains(kept.to_str().unwrap()), "{error}");
        assert_eq!(std::fs::read(kept).unwrap(), text);
        std::fs::remove_file(kept).unwrap();
        assert_eq!(everything(&bed), before);
        assert_eq!(recover(&bed).unwrap(), Recovery::Nothing);
    }
    let obstacles: [fn(&std::path::Path); 3] = [
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        |path| std::fs::create_dir(path).unwrap(),
        |path| link("/etc/passwd", path),
    ];
    for put in obstacles {
        put(&bed.records.journal);
        let error = recover(&bed).unwrap_err();
        let RecoverError::SetAside { kept, .. } = &error else { panic!("{error:?}") };
        std::fs::remove_file(kept).or_else(|_| std::fs::remove_dir(kept)).unwrap();
    }
    bed.install_all("app").unwrap();
}

#[test]
fn the_journal_of_a_newer_agent_stays_and_says_so() {
    let (bed, journal) = second_install();
    let newer = String::from_utf8(journal).unwrap().replacen("\"version\":1", "\"version\":2,\"more\":[]", 1);
    std::fs::write(&bed.records.journal, &newer).unwrap();
    let error = recover(&bed).unwrap_err();
    assert!(matches!(&error, RecoverError::Journal(JournalError::Newer { version: 2, .. })), "{error:?}");
    assert_eq!(std::fs::read_to_string(&bed.records.journal).unwrap(), newer);
}

#[test]
fn changes_are_taken_back_from_the_journal_and_only_while_nobody_else_was_there() {
    let (bed, journal) = second_install();
    // As if it had ended before the commit, with what was displaced still beside its place.
    let text = String::from_utf8(journal).unwrap().replace("\"committed\"\n", "");
    for kept in tree(&bed.deployment().join("displaced")).into_keys().filter(|kept| kept.iter().count() == 1)
    {
        let name = kept.to_str().unwrap();
        let Some(line) = text.lines().find(|line| line.contains(&format!("{name}\",\"takes\":true"))) else {
            continue;
        };
        let spare = line.split("\"spare\":\"").nth(1).unwrap().split('"').next().unwrap();
        std::fs::rename(bed.deployment().join("displaced").join(&kept), spare).unwrap();
    }
    std::fs::write(&bed.records.journal, &text).unwrap();
    let unfinished = install::unfinished(&bed.records.journal).unwrap().unwrap();
    assert_eq!(unfinished.phase, Phase::Changing);
    assert!(unfinished.changes.iter().all(|change| change.made == Some(true)), "{unfinished:#?}");
    let kinds: Vec<Kind> = unfinished.changes.iter().map(|change| change.kind).collect();
    assert!([Kind::Create, Kind::Replace, Kind::Remove].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");

    write(&bed.host("app/gone"), "of somebody else");
    let error = recover(&bed).unwrap_err();
    let RecoverError::Left { left, .. } = &error else { panic!("{error:?}") };
    assert!(
        left.len() == 1 && left[0].contains("app/gone, which is the file or folder of before"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(bed.host("app/gone")).unwrap(), "of somebody else");
    std::fs::remove_file(bed.host("app/gone")).unwrap();
    assert!(matches!(recover(&bed).unwrap(), Recovery::RolledBack { .. }));
    assert_eq!(
        bed.listing(),
        ["app/", "app/a 1", "app/gone 1", "app/log operator's", "app/sub/", "app/sub/x 1"]
    );
}

#[test]
fn one_process_at_a_time_installs() {
    let bed = Bed::new();
    let folder = bed.root.path().join("records");
    assert!(!Turn::is_taken(&folder));
    let turn = bed.turn();
    assert!(Turn::is_taken(&folder));
    let (sender, taken) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn({
        let folder = folder.clone();
        move || {
            let turn = Turn::wait(&folder).unwrap();
            sender.send(()).unwrap();
            drop(turn);
        }
    });
    assert!(taken.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    drop(turn);
    taken.recv().unwrap();
    waiting.join().unwrap();
}
