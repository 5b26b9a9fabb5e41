//! `cargo run --release --bin install_benchmark`: whole local deployments, compared with bare tools
//! that move the same bytes.
//!
//! `unzip` or `tar -x`, `cp -a` and `sync -f` of both folders do less than a deployment: no
//! journal, no manifest, no permissions, no checks. Both start from the same archive, alternately,
//! in one folder of one file system.
//!
//! The same tools without `sync` are the measure of AWS's agent, which flushes nothing either.
//!
//! The last rows show the event Install alone: of a revision of which few files changed, compared
//! with that of the same revision on an empty host.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "it starts programs and ends where it cannot"
)]

#[path = "install_benchmark/update.rs"]
mod update;

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use codedeploy_tests::figures::{self, Aim, Figures, median};
use codedeploy_tests::{bundle, roles};

const ABOUT: &str = "\
Measures whole local deployments beside bare tools that move the same bytes, with and without sync,
and the Install of a revision of which few files changed. Each figure is a median; both sides run
alternately. The aim beside unsynced tools is the ratio of AWS's Ruby agent.";

/// The contents of a revision.
struct Shape {
    name: &'static str,
    files: usize,
    /// The sizes of the files in bytes, used in rotation.
    sizes: &'static [usize],
    rounds: usize,
    /// The time of AWS's Ruby agent 1.8.1 for each of `KINDS`, divided by that of bare tools without
    /// `sync`, where it was measured.
    ruby_agent: [Option<f64>; 3],
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "10,000 files of 1-8 KiB",
        files: 10_000,
        sizes: &[1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192],
        rounds: 5,
        ruby_agent: [Some(1.40), Some(1.38), Some(1.44)],
    },
    Shape {
        name: "20 files of 51 MiB",
        files: 20,
        sizes: &[51 << 20],
        rounds: 5,
        ruby_agent: [Some(1.09), Some(1.54), None],
    },
];

/// The bundle types, and the commands with which bare tools unpack them into a folder.
const KINDS: [(&str, &str, &str); 3] = [
    (
        "zip",
        "zip -q -r $ARCHIVE .",
        "unzip -q $ARCHIVE -d $FOLDER",
    ),
    ("tar", "tar -cf $ARCHIVE .", "tar -xf $ARCHIVE -C $FOLDER"),
    ("tgz", "tar -czf $ARCHIVE .", "tar -xf $ARCHIVE -C $FOLDER"),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let json = match figures::only_json("install_benchmark", ABOUT, &arguments) {
        Ok(json) => json,
        Err(code) => return code,
    };
    let mut figures = Figures::new(json);
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let folder = tempfile::Builder::new()
        .prefix("codedeploy-benchmark-")
        .tempdir()
        .expect("a temporary folder");
    figures.section("Local deployments, beside unzip or tar, cp -a and sync of the same files");
    for shape in &SHAPES {
        let revision = shape.revision(folder.path());
        for ((kind, pack, unpack), ruby_agent) in KINDS.into_iter().zip(shape.ruby_agent) {
            let place = Place {
                folder: folder.path(),
                archive: folder.path().join(format!("bundle.{kind}")),
            };
            place.shell(&revision, pack);
            let (mut ours, mut bare, mut unsynced) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..shape.rounds {
                bare.push(place.bare(unpack, "sync -f . && sync -f ../copy"));
                ours.push(runtime.block_on(place.deploy(kind)));
                unsynced.push(place.bare(unpack, "true"));
            }
            let (ours, bare, unsynced) = (median(ours), median(bare), median(unsynced));
            let name = format!("{}, {kind}", shape.name);
            figures.compare(&name, ours, ("bare tools", bare), "s", Aim::AtMost(1.0));
            let aim = ruby_agent.map_or(Aim::None, Aim::AtMost);
            let name = format!("{name}, tools without sync");
            figures.compare(&name, ours, ("bare tools", unsynced), "s", aim);
            fs::remove_file(&place.archive).expect("it was made");
        }
        fs::remove_dir_all(&revision).expect("it was made");
    }
    update::measure(folder.path(), &mut figures);
    figures.finish();
    ExitCode::SUCCESS
}

impl Shape {
    /// Writes the revision; its files are incompressible.
    fn revision(&self, folder: &Path) -> PathBuf {
        let revision = folder.join("revision");
        let target = folder.join("installed");
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: data\n    destination: {0}\npermissions:\n  - object: {0}\n    \
             pattern: \"**\"\n    mode: 640\n    type: [file]\n",
            target.display()
        );
        bundle::write(&revision, &[("appspec.yml", &appspec)]);
        let mut noise = fs::File::open("/dev/urandom").expect("the system has randomness");
        for number in 0..self.files {
            let below = revision.join(format!("data/{:02}", number % 100));
            fs::create_dir_all(&below).expect("the disk has room");
            let mut content = vec![0; self.sizes[number % self.sizes.len()]];
            noise
                .read_exact(&mut content)
                .expect("there is enough of it");
            fs::write(below.join(number.to_string()), content).expect("the disk has room");
        }
        revision
    }
}

/// The folder in which both work.
struct Place<'a> {
    folder: &'a Path,
    archive: PathBuf,
}

impl Place<'_> {
    /// The seconds that the bare tools take.
    fn bare(&self, unpack: &str, flush: &str) -> f64 {
        let (unpacked, copy) = (self.folder.join("unpacked"), self.folder.join("copy"));
        fs::create_dir(&unpacked).expect("a folder");
        self.shell(self.folder, "sync -f .");
        let began = Instant::now();
        self.shell(
            &unpacked,
            &format!("{unpack} && cp -a . ../copy && {flush}"),
        );
        let seconds = began.elapsed().as_secs_f64();
        [unpacked, copy]
            .iter()
            .for_each(|path| fs::remove_dir_all(path).expect("it was made"));
        seconds
    }

    /// The seconds that a deployment without scripts takes.
    async fn deploy(&self, kind: &str) -> f64 {
        let (root, installed) = (self.folder.join("root"), self.folder.join("installed"));
        let configuration = self.folder.join("agent.yml");
        fs::write(&configuration, format!("root_dir: {}\n", root.display()))
            .expect("the disk has room");
        self.shell(self.folder, "sync -f .");
        let (archive, configuration) = (self.archive.as_os_str(), configuration.as_os_str());
        let arguments = [
            "-l".as_ref(),
            archive,
            "-t".as_ref(),
            kind.as_ref(),
            "-c".as_ref(),
            configuration,
        ];
        let began = Instant::now();
        let output = roles::programs().local.output(arguments).await;
        let seconds = began.elapsed().as_secs_f64();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        [root, installed]
            .iter()
            .for_each(|path| fs::remove_dir_all(path).expect("it was deployed"));
        seconds
    }

    fn shell(&self, folder: &Path, command: &str) {
        let ran = Command::new("sh")
            .args(["-c", command])
            .current_dir(folder)
            .env("ARCHIVE", &self.archive)
            .env("FOLDER", folder)
            .status();
        assert!(
            ran.expect("sh exists").success(),
            "{command}: zip, unzip and tar must be installed"
        );
    }
}
