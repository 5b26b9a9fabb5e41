//! A command's path through the ledger, and the results of a crash between two steps.

use std::path::Path;

use codedeploy_api::command::CommandStatus;

use super::*;

fn ledger(root: &Path) -> Ledger {
    Ledger::open(&Store::new(root, "ongoing-deployment")).unwrap()
}

fn command(id: &str) -> HostCommand {
    let id = id.to_owned();
    HostCommand {
        host_command_identifier: id,
        host_identifier: "arn:host".into(),
        deployment_execution_id: "execution".into(),
        command_name: "Install".into(),
        nonce: 1,
    }
}

fn completion(id: &str) -> PutHostCommandCompleteInput {
    let command_status = CommandStatus::Succeeded;
    PutHostCommandCompleteInput {
        host_command_identifier: id.into(),
        command_status,
        diagnostics: None,
        scripts: None,
    }
}

#[test]
fn a_command_moves_from_in_progress_to_the_outbox_and_is_remembered() {
    let root = tempfile::tempdir().unwrap();
    // An opaque identifier that cannot be a file name.
    let id = "arn:aws/…\"".repeat(100);
    let _entry = ledger(root.path())
        .receive(command(&id), LifecycleEvent::Install)
        .unwrap();

    let left = ledger(root.path()).left();
    assert_eq!((left.outcomes.len(), left.foreign.len()), (0, 0));
    let [entry] = <[Entry; 1]>::try_from(left.interrupted).unwrap();
    assert_eq!(
        (entry.record().command.clone(), entry.record().starts),
        (command(&id), 1)
    );
    let outgoing = ledger(root.path()).end(entry, completion(&id));
    assert!(outgoing.is_safe());

    let left = ledger(root.path()).left();
    assert_eq!(left.interrupted.len(), 0);
    let [outgoing] = <[Outgoing; 1]>::try_from(left.outcomes).unwrap();
    assert_eq!(
        ledger(root.path())
            .told(&id)
            .map(|told| told.command_status),
        None
    );
    ledger(root.path()).close(outgoing);
    assert_eq!(ledger(root.path()).left().outcomes.len(), 0);
    assert_eq!(
        ledger(root.path()).told(&id).unwrap().command_status,
        CommandStatus::Succeeded
    );
}

#[test]
fn an_agent_that_ended_between_two_changes_owes_the_later() {
    let root = tempfile::tempdir().unwrap();
    let ledger = ledger(root.path());
    let entry = ledger
        .receive(command("a"), LifecycleEvent::Install)
        .unwrap();
    let record = fs::read(ledger.in_progress.join(file_name("a"))).unwrap();
    let outgoing = ledger.end(entry, completion("a"));
    for _ in 0..2 {
        fs::write(ledger.in_progress.join(file_name("a")), &record).unwrap();
        let left = ledger.left();
        assert_eq!((left.outcomes.len(), left.interrupted.len()), (1, 0));
    }
    ledger.close(outgoing);
    fs::write(ledger.in_progress.join(file_name("a")), &record).unwrap();
    let left = ledger.left();
    assert_eq!((left.outcomes.len(), left.interrupted.len()), (0, 0));
}

#[test]
fn a_disk_that_takes_no_outcome_keeps_none_that_was_told() {
    let root = tempfile::tempdir().unwrap();
    let ledger = ledger(root.path());
    let entry = ledger
        .receive(command("a"), LifecycleEvent::Install)
        .unwrap();
    fs::remove_dir(&ledger.outbox).unwrap();
    fs::remove_dir(&ledger.told).unwrap();
    let outgoing = ledger.end(entry, completion("a"));
    assert!(!outgoing.is_safe());
    assert_eq!(
        ledger.left().interrupted.len(),
        1,
        "until it is told, the next agent accounts for it"
    );
    ledger.close(outgoing);
    assert_eq!(ledger.left().interrupted.len(), 0);
}

#[test]
fn what_is_remembered_is_bounded_in_number() {
    let root = tempfile::tempdir().unwrap();
    let ledger = ledger(root.path());
    let told = |number: usize| ledger.told.join(file_name(&number.to_string()));
    let now = SystemTime::now();
    for number in 0..REMEMBERED + 10 {
        save(
            &told(number),
            &Ended::new("Install", None, completion(&number.to_string())),
        )
        .unwrap();
        let age = std::time::Duration::from_secs((REMEMBERED + 10 - number) as u64);
        fs::File::open(told(number))
            .unwrap()
            .set_modified(now - age)
            .unwrap();
    }
    ledger.prune();
    assert_eq!(files(&ledger.told).len(), REMEMBERED);
    assert!(
        !told(9).exists() && told(10).exists(),
        "the oldest are forgotten"
    );
}

#[test]
fn a_record_of_an_earlier_version_whose_command_is_no_event_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let ledger = ledger(root.path());
    let unnamed = HostCommand {
        command_name: "not a name".into(),
        ..command("a")
    };
    save(
        &ledger.in_progress.join(file_name("a")),
        &InProgress::new(unnamed),
    )
    .unwrap();
    let left = ledger.left();
    assert_eq!(left.interrupted.len(), 0);
    let [foreign] = <[ForeignCommand; 1]>::try_from(left.foreign).unwrap();
    assert_eq!(foreign.host_command_identifier, "a");
    ledger.close(ledger.end_foreign(&foreign, completion("a")));
    let left = ledger.left();
    assert_eq!((left.interrupted.len(), left.foreign.len()), (0, 0));
}
