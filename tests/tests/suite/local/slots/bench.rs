//! One application in slots, for tests with `codedeploy-local`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use codedeploy_tests::bundle;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::strike::{Report, Strike};
use tempfile::TempDir;

pub(super) const GROUP: &str = "default-local-deployment-group";

/// A machine with one application in slots. Each script writes a line with the version, its event
/// and its slots into `notes`.
pub(crate) struct Bench {
    folder: PathBuf,
    /// Removes the folder, unless it is somebody else's.
    _temporary: Option<TempDir>,
}

/// A revision.
pub(crate) struct Revision<'a> {
    pub(crate) version: &'a str,
    /// Further lines of the strategy; `None` without one.
    pub(crate) strategy: Option<&'a str>,
    /// The event whose script fails.
    pub(crate) fails: Option<&'a str>,
    /// Whether it has a file outside of the slots.
    pub(crate) elsewhere: bool,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    pub(super) fn with(configuration: &str) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let bench = Self::at(temporary.path(), configuration);
        Self {
            _temporary: Some(temporary),
            ..bench
        }
    }

    /// Everything in `folder`.
    pub(crate) fn at(folder: &Path, configuration: &str) -> Self {
        let bench = Self {
            folder: folder.to_owned(),
            _temporary: None,
        };
        let text = format!(
            "root_dir: {folder}/root\nlog_dir: {folder}/log\npid_dir: {folder}/run\n{configuration}\n",
            folder = folder.display(),
        );
        fs::write(bench.path("conf.yml"), text).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The scripts' notes since the last call.
    pub(crate) fn notes(&self) -> String {
        let notes = fs::read_to_string(self.path("notes")).unwrap_or_default();
        let _ = fs::remove_file(self.path("notes"));
        notes.replace(&format!("{}/", self.folder.display()), "")
    }

    /// The version that the link leads to.
    pub(crate) fn serves(&self) -> String {
        fs::read_to_string(self.path("app/version")).unwrap_or_default()
    }

    /// The slot that the link leads to.
    pub(super) fn slot(&self) -> String {
        let target = fs::read_link(self.path("app")).unwrap_or_default();
        target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) async fn deploy(&self, revision: &Revision<'_>) -> (bool, String) {
        let location = self.write(revision);
        self.local(&["--bundle-location", &location]).await
    }

    /// Deploys while `codedeploy-local` is killed at a system call.
    pub(crate) async fn struck(&self, revision: &Revision<'_>, strike: Strike) -> Report {
        let location = self.write(revision);
        let configuration = self.path("conf.yml");
        let arguments = ["--bundle-location", &location, "-c"].map(OsString::from);
        let all = [&arguments[..], &[configuration.into()]].concat();
        strike.run(&Programs::built().local, &all).await
    }

    /// Writes a revision; returns its folder.
    pub(super) fn write(&self, revision: &Revision<'_>) -> String {
        let Revision { version, .. } = revision;
        let folder = self.path("revision");
        let _ = fs::remove_dir_all(&folder);
        let root = self.folder.display();
        let mut appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - {{source: site, destination: {root}/app}}\n"
        );
        if revision.elsewhere {
            appspec += &format!("  - {{source: etc, destination: {root}/etc}}\n");
        }
        if let Some(more) = revision.strategy {
            appspec += &format!(
                "strategy:\n  type: blue_green\n  link: {root}/app\n  ports: [18001, 18002]\n  drain: 0\n{more}"
            );
        }
        appspec += "hooks:\n";
        let mut files = Vec::new();
        for event in [
            "ApplicationStop",
            "BeforeInstall",
            "AfterInstall",
            "ApplicationStart",
            "ValidateService",
            "AfterAllowTraffic",
        ] {
            appspec += &format!("  {event}:\n    - location: {event}.sh\n");
            let fails = if revision.fails == Some(event) { 3 } else { 0 };
            let script = format!(
                "#!/bin/sh\necho \"{version} $LIFECYCLE_EVENT ${{SLOT:-none}}:${{SLOT_PORT:-}} $SLOT_DIR live \
                 ${{LIVE_SLOT_DIR:-none}}:${{LIVE_SLOT_PORT:-}}\" >> {root}/notes\nexit {fails}\n"
            );
            files.push((format!("{event}.sh"), script));
        }
        files.push(("appspec.yml".to_owned(), appspec));
        files.push(("site/version".to_owned(), (*version).to_owned()));
        files.push((format!("site/only/{version}"), String::new()));
        files.push(("etc/app.conf".to_owned(), (*version).to_owned()));
        files.push((
            "traffic.sh".to_owned(),
            format!(
                "#!/bin/sh\necho \"traffic ${{FROM_SLOT:-none}} $TO_SLOT:$TO_PORT link $(readlink {root}/app)\" >> {root}/notes\n\
                 test ! -e {root}/jam\n"
            ),
        ));
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        bundle::write(&folder, &files);
        folder.to_str().unwrap().to_owned()
    }

    pub(super) async fn local(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [arguments, &["-c", configuration.to_str().unwrap()]].concat();
        let output = Programs::built().local.output(all).await;
        (output.status.success(), texts(&output))
    }

    pub(super) async fn agent(&self, arguments: &[&str]) -> (bool, String) {
        let configuration = self.path("conf.yml");
        let all = [
            arguments,
            &["--config-file", configuration.to_str().unwrap()],
        ]
        .concat();
        let output = Programs::built().agent.output(all).await;
        (output.status.success(), texts(&output))
    }

    /// Whether journals and temporary names are gone.
    pub(crate) fn leaves_nothing_behind(&self) -> Result<(), String> {
        let journal = |name: &String| name.contains("journal") || name.contains("jsonl");
        let records = self.names("root/deployment-instructions").into_iter();
        let mut left = records.filter(journal).collect::<Vec<_>>();
        left.extend(
            self.names("")
                .into_iter()
                .filter(|name| name.starts_with('.')),
        );
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left behind: {left:?}"))
        }
    }

    pub(super) async fn roll_back(&self) -> (bool, String) {
        self.agent(&["rollback", "--deployment-group", GROUP]).await
    }

    #[track_caller]
    pub(crate) fn expect(&self, slot: &str, version: &str) {
        assert_eq!((self.slot(), self.serves()), (slot.into(), version.into()));
    }
}

/// A revision in slots.
pub(crate) fn revision(version: &str) -> Revision<'_> {
    Revision {
        version,
        strategy: Some(""),
        fails: None,
        elsewhere: false,
    }
}

fn texts(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

#[track_caller]
pub(crate) fn succeeds((succeeded, said): (bool, String)) -> String {
    assert!(succeeded, "{said}");
    said
}

#[track_caller]
pub(crate) fn fails((succeeded, said): (bool, String)) -> String {
    assert!(!succeeded, "{said}");
    said
}
