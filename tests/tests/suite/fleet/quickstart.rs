//! The quickstart as a newcomer runs it.

use std::process::Command;

#[test]
fn it_deploys_three_versions_goes_back_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let answers: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once(" answers: ")?.1))
        .collect();
    let page = |version: u8| format!("Hello from version {version}");
    assert_eq!(answers.last(), Some(&page(2).as_str()), "{said}");
    for version in [1, 2, 3] {
        assert!(answers.contains(&page(version).as_str()), "{said}");
    }
    for expected in [
        "/console/login?link=",
        "ValidateService   Failed",
        "answers 503: cannot reach the database",
        "deployment Failed after",
    ] {
        assert!(said.contains(expected), "{expected} not in\n{said}");
    }
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the temporary folder is removed"
    );
    let place = temporary.path().to_str().unwrap();
    let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    let left = String::from_utf8_lossy(&processes.stdout)
        .lines()
        .filter(|line| line.contains(place))
        .count();
    assert_eq!(left, 0, "nothing is left running");
}

#[test]
fn an_option_that_does_not_exist_is_explained() {
    let ran = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .arg("--fast")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(2));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        said.contains("--fast is not an option") && said.contains("--keep"),
        "{said}"
    );
}
