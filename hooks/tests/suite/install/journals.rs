//! Truncated or damaged journals: written records are followed, and nothing is guessed.

use std::hash::Hasher as _;
use std::path::PathBuf;

use codedeploy_hooks::install::{self, JournalError, Kind, Phase, RecoverError, Recovery, Turn};

use super::bed::{Bed, link, mode, tree, write};

/// A host on which version 2 is installed over version 1, with the complete journal of that.
fn second_install() -> (Bed, Vec<u8>) {
    second_install_on(Bed::new())
}

fn second_install_on(mut bed: Bed) -> (Bed, Vec<u8>) {
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

/// The state before the commit, with the displaced objects still beside their places.
fn before_the_commit(bed: &Bed, journal: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').collect();
    let put_away = tree(&bed.deployment().join("displaced")).into_keys();
    for kept in put_away.filter(|kept| kept.iter().count() == 1) {
        let end = format!("{}\",\"takes\":true", kept.display());
        let Some(line) = lines
            .iter()
            .map(|line| text(line))
            .find(|line| line.contains(&end))
        else {
            continue;
        };
        let spare = line
            .split("\"spare\":\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        std::fs::rename(bed.deployment().join("displaced").join(&kept), spare).unwrap();
    }
    lines
        .into_iter()
        .filter(|line| !text(line).contains("\"committed\""))
        .flatten()
        .copied()
        .collect()
}

fn text(line: &[u8]) -> String {
    String::from_utf8(line.to_vec()).unwrap()
}

/// Removes a line's checksum.
fn unsealed(line: &[u8]) -> String {
    format!("{{{}", text(line).split_once(',').unwrap().1)
}

/// Adds the checksum for a line's present contents.
fn sealed(line: &str) -> String {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(line.strip_prefix('{').unwrap().trim_end().as_bytes());
    format!("{{\"sum\":\"{:016x}\",{}", hasher.finish(), &line[1..])
}

/// A journal in the form without checksums.
pub(crate) fn of_version_1(journal: &[u8]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in journal.split_inclusive(|byte| *byte == b'\n') {
        let mut line = unsealed(line).replacen("\"version\":3", "\"version\":1", 1);
        if let Some((before, (_, after))) = line
            .split_once("\"kept\":[")
            .map(|(a, b)| (a, b.split_once("],").unwrap()))
        {
            line = format!("{before}{after}");
        }
        line = line.replace("{\"committed\":{}}", "\"committed\"");
        for member in ["\"brings\":", "\"inode\":"] {
            let Some((before, rest)) = line.split_once(&format!("{member}{{\"inode\":")) else {
                continue;
            };
            let (inode, mut after) = rest.split_once(',').unwrap();
            if let Some((_, state)) = after.split_once("\"state\":{") {
                after = state.split_once("}}").unwrap().1;
            }
            line = format!(
                "{before}{member}{inode}{}",
                after.strip_prefix('}').unwrap_or(after)
            );
        }
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

fn recover(bed: &Bed) -> Result<Recovery, RecoverError> {
    install::recover(&bed.records.journal, &bed.turn())
}

/// Everything but the folder of the records, which contains the journal.
fn everything(bed: &Bed) -> super::bed::Tree {
    let mut all = bed.tree();
    all.extend(
        tree(&bed.deployment())
            .into_iter()
            .map(|(path, seen)| (PathBuf::from("deployment").join(path), seen)),
    );
    all.retain(|path, _| {
        !path
            .to_str()
            .is_some_and(|path| path.contains("journal.json"))
    });
    all
}

#[test]
fn a_journal_that_ends_before_it_was_prepared_undoes_nothing() {
    let (bed, journal) = second_install();
    let before = everything(&bed);
    let lines: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').collect();
    let prepared = lines
        .iter()
        .position(|line| text(line).contains("\"prepared\""))
        .unwrap();
    assert!(prepared > 4, "{}", String::from_utf8_lossy(&journal));
    for kept in 1..=prepared {
        for torn in [
            &b""[..],
            b"{\"cha",
            b"{\"prepared\":{\"changes\":",
            b"\0\0\0\0",
            b"\0\0\n",
        ] {
            std::fs::write(
                &bed.records.journal,
                [&lines[..kept].concat(), torn].concat(),
            )
            .unwrap();
            let unfinished = install::unfinished(&bed.records.journal).unwrap().unwrap();
            assert_eq!(
                (unfinished.phase, unfinished.changes.len()),
                (Phase::Building, 0)
            );
            let recovery = recover(&bed).unwrap();
            assert!(
                matches!(recovery, Recovery::RolledBack { .. }),
                "{kept} lines: {recovery:?}"
            );
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
        let Recovery::RolledForward {
            deployment,
            summary,
            ..
        } = recover(&bed).unwrap()
        else {
            panic!("a committed Install stays");
        };
        assert_eq!(deployment, bed.deployment());
        assert_eq!(
            (summary.created, summary.replaced, summary.removed),
            (1, 3, 1)
        );
        assert_eq!(summary.warnings, [] as [&str; 0]);
        assert_eq!(
            bed.listing(),
            [
                "app/",
                "app/a 2",
                "app/log operator's",
                "app/new 2",
                "app/sub/",
                "app/sub/x 2"
            ]
        );
        let differing = everything(&bed)
            .into_iter()
            .filter(|(path, seen)| before.get(path) != Some(seen));
        let differing: Vec<_> = differing.map(|(path, _)| path).collect();
        assert_eq!(
            differing,
            [PathBuf::from("deployment/undo.json")],
            "it is written again"
        );
    }
    bed.restore().unwrap();
    assert_eq!(
        bed.listing(),
        [
            "app/",
            "app/a 1",
            "app/gone 1",
            "app/log operator's",
            "app/sub/",
            "app/sub/x 1"
        ]
    );
}

#[test]
fn what_is_no_journal_is_set_aside_with_its_name_and_installs_go_on() {
    let (bed, journal) = second_install();
    let before = everything(&bed);
    let lines: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').collect();
    let mut flipped = journal.clone();
    flipped[lines[0].len()] = b'[';
    let noise: Vec<u8> = (0..10 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let without_a_change = [lines[0], &lines[2..].concat()].concat();
    let over = [&journal[..], lines[1]].concat();
    let bad: [&[u8]; 9] = [
        b"",
        b"\n",
        b"{}\n",
        b"[1,2]\n",
        b"\xff\xfe\n",
        &noise,
        &flipped,
        &without_a_change,
        &over,
    ];
    for bytes in bad {
        std::fs::write(&bed.records.journal, bytes).unwrap();
        assert!(install::unfinished(&bed.records.journal).is_err());
        let error = recover(&bed).unwrap_err();
        let RecoverError::SetAside { kept, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(
            error.to_string().contains(kept.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(std::fs::read(kept).unwrap(), bytes);
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
        let RecoverError::SetAside { kept, .. } = &error else {
            panic!("{error:?}")
        };
        std::fs::remove_file(kept)
            .or_else(|_| std::fs::remove_dir(kept))
            .unwrap();
    }
    bed.install_all("app").unwrap();
}

#[test]
fn the_journal_of_a_newer_agent_stays_and_says_so() {
    let (bed, journal) = second_install();
    let first = unsealed(
        journal
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .unwrap(),
    );
    let newer = first.replacen("\"version\":3", "\"version\":4,\"more\":[]", 1);
    let newer = sealed(&newer);
    std::fs::write(&bed.records.journal, &newer).unwrap();
    let error = recover(&bed).unwrap_err();
    assert!(
        matches!(
            &error,
            RecoverError::Journal(JournalError::Newer { version: 4, .. })
        ),
        "{error:?}"
    );
    assert_eq!(
        std::fs::read_to_string(&bed.records.journal).unwrap(),
        newer
    );
}

#[test]
fn changes_are_taken_back_from_the_journal_and_only_while_nobody_else_was_there() {
    let (bed, journal) = second_install();
    std::fs::write(&bed.records.journal, before_the_commit(&bed, &journal)).unwrap();
    let unfinished = install::unfinished(&bed.records.journal).unwrap().unwrap();
    assert_eq!(unfinished.phase, Phase::Changing);
    assert!(
        unfinished
            .changes
            .iter()
            .all(|change| change.made == Some(true)),
        "{unfinished:#?}"
    );
    let kinds: Vec<Kind> = unfinished
        .changes
        .iter()
        .map(|change| change.kind)
        .collect();
    assert!(
        [Kind::Create, Kind::Replace, Kind::Remove]
            .iter()
            .all(|kind| kinds.contains(kind)),
        "{kinds:?}"
    );

    write(&bed.host("app/gone"), "of somebody else");
    let error = recover(&bed).unwrap_err();
    let RecoverError::Left { left, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(
        left.len() == 1 && left[0].contains("app/gone, which is the file or folder of before"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_to_string(bed.host("app/gone")).unwrap(),
        "of somebody else"
    );
    std::fs::remove_file(bed.host("app/gone")).unwrap();
    assert!(matches!(
        recover(&bed).unwrap(),
        Recovery::RolledBack { .. }
    ));
    assert_eq!(
        bed.listing(),
        [
            "app/",
            "app/a 1",
            "app/gone 1",
            "app/log operator's",
            "app/sub/",
            "app/sub/x 1"
        ]
    );
}

#[test]
fn a_journal_of_an_earlier_version_is_followed() {
    let (bed, journal) = second_install();
    std::fs::write(&bed.records.journal, of_version_1(&journal)).unwrap();
    assert!(matches!(
        recover(&bed).unwrap(),
        Recovery::RolledForward { .. }
    ));
    let interrupted = before_the_commit(&bed, &journal);
    std::fs::write(&bed.records.journal, of_version_1(&interrupted)).unwrap();
    assert!(matches!(
        recover(&bed).unwrap(),
        Recovery::RolledBack { .. }
    ));
    assert_eq!(
        bed.listing(),
        [
            "app/",
            "app/a 1",
            "app/gone 1",
            "app/log operator's",
            "app/sub/",
            "app/sub/x 1"
        ]
    );
}

#[test]
fn one_flipped_bit_is_found_or_makes_no_difference() {
    let (bed, complete) = second_install_on(Bed::in_memory());
    let interrupted = before_the_commit(&bed, &complete);
    for journal in [complete, interrupted] {
        std::fs::write(&bed.records.journal, &journal).unwrap();
        let sound = install::unfinished(&bed.records.journal).unwrap().unwrap();
        let (mut found, mut without) = (0, 0);
        for position in 0..journal.len() {
            let bit = position % 8;
            let mut flipped = journal.clone();
            flipped[position] ^= 1 << bit;
            std::fs::write(&bed.records.journal, &flipped).unwrap();
            match install::unfinished(&bed.records.journal) {
                Err(JournalError::Unusable { .. }) => found += 1,
                Ok(Some(unfinished)) if unfinished == sound => without += 1,
                other => panic!("bit {bit} of byte {position}: {other:?}"),
            }
        }
        assert!(
            found > without && without > 0,
            "{found} found, {without} without a difference"
        );
    }
}

#[test]
fn what_somebody_puts_in_place_of_new_files_before_recovery_stays_whatever_inode_it_has() {
    for bed in [Bed::new, Bed::in_memory] {
        let (bed, journal) = second_install_on(bed());
        std::fs::write(&bed.records.journal, before_the_commit(&bed, &journal)).unwrap();
        for path in ["app/a", "app/new"] {
            // Some file systems reuse the inode number.
            std::fs::remove_file(bed.host(path)).unwrap();
            write(&bed.host(path), "by hand");
        }
        for _ in 0..2 {
            let error = recover(&bed).unwrap_err();
            let RecoverError::Left { left, .. } = &error else {
                panic!("{error:?}")
            };
            assert!(
                left.len() == 1 && left[0].contains("app/a, which is the file or folder of before"),
                "{error}"
            );
        }
        let kept =
            ["app/a", "app/new"].map(|path| std::fs::read_to_string(bed.host(path)).unwrap());
        assert_eq!(kept, ["by hand", "by hand"]);
        std::fs::remove_file(bed.host("app/a")).unwrap();
        let recovery = recover(&bed).unwrap();
        let Recovery::RolledBack { kept, .. } = &recovery else {
            panic!("{recovery:?}")
        };
        assert!(
            kept.len() == 1 && kept[0].contains("app/new was put there by somebody else"),
            "{kept:?}"
        );
        assert!(
            !recovery
                .to_string()
                .contains("every file is as it was before"),
            "{recovery}"
        );
        assert_eq!(
            bed.listing(),
            [
                "app/",
                "app/a 1",
                "app/gone 1",
                "app/log operator's",
                "app/new by hand",
                "app/sub/",
                "app/sub/x 1"
            ]
        );
    }
}

#[test]
fn what_somebody_writes_to_new_files_and_folders_before_recovery_is_kept_and_named() {
    let mut bed = Bed::new();
    bed.revision(&[("a", "1")]);
    bed.install_all("app").unwrap();
    bed.deployment = "d-2".into();
    std::fs::create_dir_all(bed.deployment()).unwrap();
    bed.revision(&[("a", "2"), ("new", "2"), ("dir/sub/x", "2")]);
    write(&bed.host("app/log"), "operator's");
    bed.install_all("app").unwrap();
    let journal = std::fs::read(bed.deployment().join("undo.json")).unwrap();
    std::fs::write(&bed.records.journal, before_the_commit(&bed, &journal)).unwrap();
    for path in ["app/a", "app/new", "app/dir/sub/theirs"] {
        write(&bed.host(path), "by hand");
    }
    let recovery = recover(&bed).unwrap();
    let Recovery::RolledBack { kept, .. } = recovery else {
        panic!("{recovery:?}")
    };
    assert_eq!(kept.len(), 3, "{kept:#?}");
    for (path, below) in [("app/a", ""), ("app/new", ""), ("app/dir", "sub/theirs")] {
        let named = kept
            .iter()
            .find(|kept| kept.starts_with(bed.host(path).to_str().unwrap()))
            .unwrap();
        let place = PathBuf::from(named.rsplit(' ').next().unwrap());
        assert_eq!(mode(place.parent().unwrap()), 0o700, "{named}");
        let place = if below.is_empty() {
            place
        } else {
            place.join(below)
        };
        assert_eq!(
            std::fs::read_to_string(place).unwrap(),
            "by hand",
            "{named}"
        );
    }
    let visible: Vec<String> = bed
        .listing()
        .into_iter()
        .filter(|line| !line.contains(".codedeploy-"))
        .collect();
    assert_eq!(visible, ["app/", "app/a 1", "app/log operator's"]);
    assert_eq!(recover(&bed).unwrap(), Recovery::Nothing);
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
    assert!(
        taken
            .recv_timeout(std::time::Duration::from_millis(100))
            .is_err()
    );
    drop(turn);
    taken.recv().unwrap();
    waiting.join().unwrap();
}
