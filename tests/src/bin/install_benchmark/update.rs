//! The event Install of a revision of which few files changed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use codedeploy_api::specification::FileExistsBehavior;
use codedeploy_hooks::appspec;
use codedeploy_hooks::install::{self, Records, Request, Turn};
use tokio_util::sync::CancellationToken;

use codedeploy_tests::figures::{Aim, Figures, median};

use super::{Place, SHAPES};

/// One file in so many changes.
const ONE_IN: usize = 100;

/// The host, with two revisions of 10,000 files.
struct Host {
    folder: PathBuf,
    revisions: [PathBuf; 2],
}

/// Measures how the Install of a changed revision compares with that on an empty host.
pub(super) fn measure(folder: &Path, figures: &mut Figures) {
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
    figures.section("Install of 10,000 files of which 100 changed, beside that on an empty host");
    for (name, touches) in [("same times", false), ("every file has a new time", true)] {
        let (mut updates, mut whole, mut kept) = (Vec::new(), Vec::new(), Kept::default());
        for _ in 0..shape.rounds {
            whole.push(host.install(0));
            if touches {
                host.touch();
            }
            let records = bytes(&host.records());
            updates.push(host.install(1));
            kept = host.kept(records);
            host.clear();
            // What comes second to an empty host takes as long as the first.
            whole.push(host.install(1));
            host.clear();
        }
        let (update, whole) = (median(updates), median(whole));
        figures.compare(name, update, ("first", whole), "s", Aim::AtMost(0.25));
        let of = bytes(&host.revisions[1]) as f64 / 100.0;
        let files = "kept for the way back: replaced files";
        figures.add(files, kept.files as f64 / of, "%", Aim::AtMost(2.0));
        let records = "kept for the way back: records of the Install";
        figures.add(records, kept.records as f64 / of, "%", Aim::None);
    }
}

/// The bytes that are kept for a rollback.
#[derive(Debug, Default)]
struct Kept {
    files: u64,
    records: u64,
}

impl Host {
    fn deployment(&self, number: usize) -> PathBuf {
        self.folder.join(format!("root/group/d-{number}"))
    }

    fn records(&self) -> PathBuf {
        self.folder.join("root/records")
    }

    /// The seconds that the Install of a revision takes.
    fn install(&self, number: usize) -> f64 {
        let (deployment, records) = (self.deployment(number), self.records());
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
            slot: None,
            note: None,
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

    /// `replaced` are the bytes of the records that the update replaced, which lie among the files.
    fn kept(&self, replaced: u64) -> Kept {
        let deployment = self.deployment(1);
        let files = bytes(&deployment.join("displaced")) - replaced;
        let records = bytes(&deployment) - files;
        Kept { files, records }
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
