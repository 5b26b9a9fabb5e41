//! The event Install of a revision of which few files changed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec;
use codedeploy_hooks::install::{self, Records, Request, Turn};
use tokio_util::sync::CancellationToken;

use super::{Place, SHAPES, median};

/// One file in so many changes.
const ONE_IN: usize = 100;

/// The host, with two revisions of 10,000 files.
struct Host {
    folder: PathBuf,
    revisions: [PathBuf; 2],
}

/// Prints how the Install of a changed revision compares with that on an empty host.
pub(super) fn print(folder: &Path) {
    let shape = &SHAPES[0];
    let first = shape.revision(folder);
    let second = folder.join("second");
    let place = Place {
        folder,
        archive: PathBuf::new(),
    };
    place.shell(folder, "cp -a revision second");
    let mut noise = fs::File::open("/dev/urandom").expect("the system has randomness");
    for number in (0..shape.files).step_by(ONE_IN) {
        let path = second.join(format!("data/{:02}/{number}", number % 100));
        let mut content = fs::read(&path).expect("it was copied");
        noise
            .read_exact(&mut content)
            .expect("there is enough of it");
        fs::write(path, content).expect("the disk has room");
    }
    let host = Host {
        folder: folder.to_owned(),
        revisions: [first, second],
    };
    println!(
        "\n{:<32} {:>12} {:>12} {:>7} {:>14}",
        "100 of 10,000 files changed", "update", "first", "ratio", "kept of bytes"
    );
    for (name, touches) in [("same times", false), ("every file has a new time", true)] {
        let (mut updates, mut whole, mut kept) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..shape.rounds {
            whole.push(host.install(0));
            if touches {
                host.touch();
            }
            updates.push(host.install(1));
            kept = host.kept();
            host.clear();
            // What comes second to an empty host takes as long as the first.
            whole.push(host.install(1));
            host.clear();
        }
        let (update, whole) = (median(updates), median(whole));
        println!(
            "{name:<32} {update:>10.2} s {whole:>10.2} s {:>7.2} {:>12.1} %",
            update / whole,
            kept * 100.0
        );
    }
}

impl Host {
    fn deployment(&self, number: usize) -> PathBuf {
        self.folder.join(format!("root/group/d-{number}"))
    }

    /// The seconds that the Install of a revision takes.
    fn install(&self, number: usize) -> f64 {
        let (deployment, records) = (self.deployment(number), self.folder.join("root/records"));
        fs::create_dir_all(&deployment).expect("a folder");
        fs::create_dir_all(&records).expect("a folder");
        rustix::fs::sync();
        let began = Instant::now();
        let text = fs::read(self.revisions[number].join("appspec.yml")).expect("it was written");
        let appspec = appspec::parse(&text).expect("it is valid").appspec;
        let turn = Turn::wait(&records).expect("nobody else installs here");
        let records = Records {
            instructions: records.join("group-install.json"),
            cleanup: records.join("group-cleanup"),
            pointer: records.join("group_last_successful_install"),
            journal: records.join("group-journal.json"),
        };
        let plan = install::plan(&Request {
            deployment: &deployment,
            archive: &self.revisions[number],
            appspec: &appspec,
            behavior: FileExistsBehavior::Disallow,
            records: &records,
            given: None,
            reject_unconfined: false,
            reserved: &[],
            stop: &CancellationToken::new(),
        });
        install::install(plan.expect("nothing is in the way"), &turn).expect("it succeeds");
        began.elapsed().as_secs_f64()
    }

    /// Gives every file of the second revision a new time, as a checkout does.
    fn touch(&self) {
        let now = SystemTime::now();
        for folder in fs::read_dir(self.revisions[1].join("data"))
            .expect("a folder")
            .flatten()
        {
            for file in fs::read_dir(folder.path()).expect("a folder").flatten() {
                let file = fs::File::open(file.path()).expect("it is there");
                file.set_modified(now).expect("it is ours");
            }
        }
    }

    /// The share of the revision's bytes that is kept for a rollback.
    fn kept(&self) -> f64 {
        bytes(&self.deployment(1)) as f64 / bytes(&self.revisions[1]) as f64
    }

    fn clear(&self) {
        for name in ["root", "installed"] {
            fs::remove_dir_all(self.folder.join(name)).expect("it was installed");
        }
    }
}

fn bytes(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).expect("it is there");
    if !metadata.is_dir() {
        return metadata.len();
    }
    let inside = fs::read_dir(path).expect("a folder").flatten();
    inside.map(|entry| bytes(&entry.path())).sum()
}
