//! The peak memory of an Install of many small files, compared with that of one file.

use std::path::Path;
use std::process::Command;

use super::bed::{Bed, write};

/// Enough to separate the cost per file from that of a process.
const FILES: usize = 30_000;

/// Bytes for each planned object, in addition to its path.
const MOST_PER_OBJECT: usize = 200;

/// The length of the longest name below the destination, plus that of the same file in the
/// revision.
const PATHS: usize = 2 * "folder-00/file-00000".len();

/// The variable that names the bed of a child.
const BED: &str = "CODEDEPLOY_TEST_MEMORY_BED";

/// Runs as the child: installs, and reports its peak memory.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test binary has no other way to be told"
)]
fn child() {
    let Ok(root) = std::env::var(BED) else { return };
    let mut bed = Bed::at(Path::new(&root));
    bed.deployment = std::fs::read_to_string(bed.root.path().join("deployment")).unwrap();
    bed.install_all("app").unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    std::fs::write(bed.root.path().join("peak"), (peak * 1024).to_string()).unwrap();
}

/// The bytes that a process needs to install the bed's revision.
#[allow(clippy::disallowed_methods, reason = "this test starts itself")]
fn peak(bed: &Bed, deployment: &str) -> usize {
    std::fs::create_dir_all(bed.root.path().join("deployments").join(deployment)).unwrap();
    std::fs::write(bed.root.path().join("deployment"), deployment).unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child
        .args(["--exact", &format!("{module}::child")])
        .env(BED, bed.root.path())
        // As the agent sets it for itself.
        .env("MALLOC_ARENA_MAX", "1");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(bed.root.path().join("peak"))
        .unwrap()
        .parse()
        .unwrap()
}

fn files(bed: &Bed, count: usize, text: &str) {
    let name = |number: usize| format!("folder-{:02}/file-{number:05}", number % 20);
    let names: Vec<String> = (0..count).map(name).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), text)).collect();
    bed.revision(&files);
}

#[test]
fn an_install_takes_at_most_200_bytes_for_each_object_beside_its_path() {
    let one = Bed::in_memory();
    files(&one, 1, "");
    let base = peak(&one, "d-1");
    let bed = Bed::in_memory();
    files(&bed, FILES, "1");
    // This gives each file a step of its own.
    for folder in 0..20 {
        write(
            &bed.host(&format!("app/folder-{folder:02}/of-the-operator")),
            "",
        );
    }
    let mut costs = Vec::new();
    for (deployment, text, what) in [
        ("d-1", "1", "files are new"),
        ("d-2", "2", "each file replaces one"),
        ("d-3", "3", "the ones replaced before are given up"),
        ("d-4", "3", "each file stays and gets another time"),
    ] {
        files(&bed, FILES, text);
        let each = (peak(&bed, deployment).saturating_sub(base)) / FILES;
        println!("{each} bytes for each of {FILES} objects when {what}");
        costs.push((each.saturating_sub(PATHS), what));
    }
    for (cost, what) in costs {
        assert!(
            cost <= MOST_PER_OBJECT,
            "{cost} bytes for each object when {what}"
        );
    }
}
