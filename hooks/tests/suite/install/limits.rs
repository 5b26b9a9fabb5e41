//! The largest Install, and the places where nothing is installed.

use std::fmt::Write as _;
use std::time::Instant;

use codedeploy_hooks::appspec::{
    AppSpec, ArchivePath, FileMapping, HostPath, Mode, NamePattern, Pattern, Permission,
};
use codedeploy_hooks::install::{Conflict, InstallError};

use super::bed::{Bed, conflicts, link, write};

/// Far more than necessary in an unoptimised build on a shared machine.
const TIME_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

fn texts(found: &[Conflict]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_installed_in_folders_of_the_agent_or_through_what_the_kernel_makes() {
    let mut bed = Bed::new();
    for folder in ["agent/instructions", "real"] {
        std::fs::create_dir_all(bed.host(folder)).unwrap();
    }
    link("agent", &bed.host("alias"));
    link("/proc/self/cwd", &bed.host("here"));
    bed.reserved = vec![bed.host("agent"), bed.host("not/made/yet")];
    bed.revision(&[("x", "1"), ("agent/y", "1")]);
    let before = bed.tree();
    let host = bed.host("").display().to_string();
    for (destination, expected) in [
        (format!("{host}agent"), "which the agent keeps for itself"),
        (
            format!("{host}agent/instructions/new"),
            "which the agent keeps for itself",
        ),
        (
            format!("{host}alias/new"),
            "which the agent keeps for itself",
        ),
        (
            format!("{host}not/made/yet/x"),
            "which the agent keeps for itself",
        ),
        (format!("{host}here/z"), "/proc or /sys"),
        ("/proc/self/cwd/z".to_owned(), "/proc or /sys"),
        ("/sys/z".to_owned(), "/proc or /sys"),
        ("/proc".to_owned(), "/proc or /sys"),
        ("/dev".to_owned(), "in /dev, where the kernel makes"),
        ("/dev/disk/z".to_owned(), "in /dev, where the kernel makes"),
    ] {
        let mut appspec = bed.appspec(&[]);
        let source = ArchivePath::new("x").unwrap();
        let destination = HostPath::new(&destination).unwrap();
        appspec.files = vec![FileMapping {
            source,
            destination: destination.clone(),
        }];
        let found = texts(&conflicts(bed.install(&appspec)));
        assert!(found[0].contains(expected), "{destination:?}: {found:?}");
        assert_eq!(bed.tree(), before);
    }
    // From outside, too.
    let found = texts(&conflicts(bed.install_all("")));
    assert!(
        found[0].contains("agent/y: inside") && found.len() == 1,
        "{found:?}"
    );
    bed.install(&bed.appspec(&[("x", "agents")])).unwrap();
}

#[test]
fn clean_up_leaves_the_agents_folders_alone() {
    let mut bed = Bed::new();
    bed.revision(&[("x", "1")]);
    bed.install_all("agent").unwrap();
    bed.reserved = vec![bed.host("agent")];
    let summary = bed.install_all("app").unwrap();
    assert_eq!(bed.listing(), ["agent/", "agent/x 1", "app/", "app/x 1"]);
    assert!(
        summary
            .warnings
            .iter()
            .all(|warning| warning.contains("agent")),
        "{:?}",
        summary.warnings
    );
}

#[test]
fn what_is_too_deep_or_too_long_for_a_host_is_refused_by_name() {
    let bed = Bed::new();
    let depth = bed.host("").components().count() - 1;
    let deep = |count: usize| "d/".repeat(count);
    bed.revision(&[("a/b/c", "1")]);
    // First the folders, then a, b and c.
    bed.install_all(&deep(256 - depth - 3)).unwrap();
    let bed = Bed::new();
    bed.revision(&[("a/b/c", "1"), ("x", "1")]);
    let before = bed.tree();
    let found = conflicts(bed.install_all(&deep(256 - depth - 2)));
    assert!(
        matches!(found[..], [Conflict::TooLong { depth: 257, .. }]),
        "{found:?}"
    );
    assert!(found[0].to_string().len() < 600, "{}", found[0]);
    let long = format!("{}/", "n".repeat(200)).repeat(30);
    bed.revision(&[("nn/nnn", "1"), (&"m".repeat(150), "1")]);
    let found = conflicts(bed.install_all(&long[..4090 - bed.host("").as_os_str().len()]));
    assert!(
        found
            .iter()
            .all(|conflict| matches!(conflict, Conflict::TooLong { .. })),
        "{found:?}"
    );
    assert_eq!(bed.tree(), before);
}

#[test]
fn the_longest_path_of_a_host_can_be_installed_replaced_and_removed() {
    let bed = Bed::new();
    let host = bed.host("").as_os_str().len();
    let name = "n".repeat(200);
    let long = format!("{name}/").repeat(30);
    let long = &long[..4095 - host - "/last".len()];
    let long = long.strip_suffix('/').unwrap_or(long);
    for text in ["1", "2"] {
        bed.revision(&[("last", text)]);
        bed.install_all(long).unwrap();
    }
    bed.revision(&[]);
    bed.install_all("elsewhere").unwrap();
    assert_eq!(bed.listing(), ["elsewhere/"]);
}

#[test]
fn a_deep_revision_is_refused_by_its_depth() {
    let bed = Bed::new();
    let deep = format!("{}x", "d/".repeat(1000));
    bed.revision(&[(&deep, "1"), ("x", "1")]);
    let began = Instant::now();
    let found = conflicts(bed.install_all("app"));
    println!(
        "a plan of 1,000 folders in one another takes {:?}",
        began.elapsed()
    );
    assert!(
        matches!(found[..], [Conflict::TooDeepInRevision { .. }]),
        "{found:?}"
    );
    assert!(began.elapsed() < TIME_LIMIT, "{:?}", began.elapsed());
}

#[test]
fn an_appspec_that_multiplies_its_revision_is_refused_by_number() {
    let bed = Bed::in_memory();
    for file in 0..1000 {
        write(&bed.archive(&format!("d/{file}")), "");
    }
    let destination = |number: usize| format!("app/{number}");
    let names: Vec<String> = (0..1100).map(destination).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| ("d", name.as_str())).collect();
    let began = Instant::now();
    let found = conflicts(bed.plan(&bed.appspec(&files)));
    assert_eq!(found, [Conflict::TooManyObjects { most: 1_000_000 }]);
    assert!(found[0].to_string().contains("1000000"), "{}", found[0]);
    assert!(began.elapsed() < TIME_LIMIT, "{:?}", began.elapsed());
}

#[test]
fn links_that_multiply_folders_are_refused() {
    let bed = Bed::new();
    bed.revision(&[("app/x", "1")]);
    // Each folder has ten links to the next one.
    for level in 0..9 {
        for number in 0..10 {
            let target = format!("../l{}", level + 1);
            link(&target, &bed.archive(&format!("l{level}/{number}")));
        }
    }
    write(&bed.archive("l9/x"), "1");
    let began = Instant::now();
    let found = conflicts(bed.install(&bed.appspec(&[("l0", "app")])));
    assert_eq!(found, [Conflict::TooManyExpansions]);
    assert!(began.elapsed() < TIME_LIMIT, "{:?}", began.elapsed());
}

fn many_files(bed: &Bed) -> AppSpec {
    let mut files: Vec<(String, &str)> = Vec::new();
    for file in 0..5000 {
        files.push((format!("file-{file:05}"), "1"));
    }
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), *text))
        .collect();
    bed.revision(&files);
    bed.all_to("app")
}

fn permissions(bed: &Bed, pattern: impl Fn(usize) -> Pattern) -> Vec<Permission> {
    let permission = |number| Permission {
        pattern: pattern(number),
        mode: Mode::new(0o600),
        ..bed.permission("app")
    };
    (0..20_000).map(permission).collect()
}

#[test]
fn many_permissions_over_many_files_take_no_time_or_are_refused() {
    let bed = Bed::in_memory();
    let mut appspec = many_files(&bed);
    let name = |number: usize| format!("file-{number:05}");
    appspec.permissions = permissions(&bed, |number| Pattern::Name(NamePattern::new(name(number))));
    let began = Instant::now();
    bed.plan(&appspec).unwrap();
    println!(
        "a plan of 20,000 permissions for 5,000 files takes {:?}",
        began.elapsed()
    );
    appspec.permissions = permissions(&bed, |_| Pattern::Everything);
    let found = texts(&conflicts(bed.plan(&appspec)));
    assert!(found[0].contains("two entries of permissions"), "{found:?}");
    assert!(found.len() < 300, "{}", found.len());
    appspec.permissions = permissions(&bed, |number| {
        Pattern::Name(NamePattern::new(format!("*a*{number}*z")))
    });
    let found = texts(&conflicts(bed.plan(&appspec)));
    assert!(found[0].contains("too many entries"), "{found:?}");
    println!("with two that are refused, {:?}", began.elapsed());
    assert!(began.elapsed() < TIME_LIMIT, "{:?}", began.elapsed());
}

#[test]
fn a_long_list_of_conflicts_is_cut_short() {
    let bed = Bed::in_memory();
    let appspec = many_files(&bed);
    for file in 0..5000 {
        write(&bed.host(&format!("app/file-{file:05}")), "operator's");
    }
    let found = texts(&conflicts(bed.plan(&appspec)));
    assert_eq!(found.len(), 201, "the first ones are enough to begin with");
    assert!(found[200].contains("there may be more"), "{}", found[200]);
}

#[test]
fn a_plan_ends_when_nobody_waits_for_it() {
    let bed = Bed::new();
    bed.revision(&[("x", "1")]);
    bed.stop.cancel();
    assert!(matches!(bed.install_all("app"), Err(InstallError::Stopped)));
    assert!(bed.listing().is_empty());
}

#[test]
fn a_file_of_another_deployment_group_is_said_to_be_that() {
    let bed = Bed::new();
    bed.revision(&[("i", "shop")]);
    bed.install_all("app").unwrap();
    write(&bed.host("app/j"), "mine");
    let mut other = Bed::at(bed.root.path());
    let record = |name: &str| bed.root.path().join("records").join(name);
    other.records.cleanup = record("web-cleanup");
    other.records.instructions = record("web-install.json");
    other.records.pointer = record("web_last_successful_install");
    other.records.journal = record("web-journal.json");
    other.revision(&[("i", "web"), ("j", "web")]);
    let found = conflicts(other.install_all("app"));
    let mut lines = String::new();
    found
        .iter()
        .for_each(|conflict| writeln!(lines, "{conflict}").unwrap());
    assert!(
        lines.contains(
            "app/i: a file is there already, which the deployment group group has installed"
        ),
        "{lines}"
    );
    assert!(
        lines.contains("app/j: a file is there already, and"),
        "{lines}"
    );
}
