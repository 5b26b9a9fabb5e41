//! Revisions with a script for every lifecycle event: each script records that it ran, and fails or
//! waits on hosts where a test asks for it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use aws_sdk_codedeploy::types::RevisionLocation;
use codedeploy_api::lifecycle::LifecycleEvent;

use crate::fleet::Fleet;
use crate::host::Host;
use crate::wait;

/// The beginning of every script. `$here` is the revision, `$host` the folder of the host that it
/// runs on.
const BEGIN: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
host=${here%%/deployment-root/*}
name=NAME.$LIFECYCLE_EVENT
echo "$DEPLOYMENT_ID $name" >> "$host/runs"
while [ -e "$host/hold.$name" ]; do sleep 0.05; done
if [ -e "$host/fail.$name" ]; then echo "$name was told to fail"; exit 1; fi
"#;

/// A revision to be pushed.
#[derive(Debug)]
pub struct Scripted {
    name: String,
    scripts: BTreeMap<String, String>,
    files: Vec<(String, String)>,
    destination: Option<PathBuf>,
}

/// Scripts of one event of one revision that wait on one host, until this is dropped.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    script: String,
}

impl Scripted {
    pub fn new(name: &str) -> Self {
        let begin = BEGIN.replace("NAME", name);
        let hooks = LifecycleEvent::standard().filter(LifecycleEvent::is_hook);
        let scripts = hooks
            .map(|event| (event.name().to_owned(), begin.clone()))
            .collect();
        Self {
            name: name.into(),
            scripts,
            files: Vec::new(),
            destination: None,
        }
    }

    /// Sets the action of `event`'s script when it does not fail.
    ///
    /// # Panics
    ///
    /// If the event has no scripts.
    pub fn does(mut self, event: &str, commands: &str) -> Self {
        self.scripts
            .get_mut(event)
            .expect("an event with scripts")
            .push_str(commands);
        self
    }

    /// Adds a file to the revision that is not installed.
    pub fn with(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.into(), text.into()));
        self
    }

    /// Installs these files.
    pub fn installs(mut self, destination: &Path, files: &[(&str, &str)]) -> Self {
        self.destination = Some(destination.into());
        self.files.extend(
            files
                .iter()
                .map(|(path, text)| (format!("installed/{path}"), (*text).into())),
        );
        self
    }

    /// Uploads it to the fleet's bucket.
    pub async fn push(self, fleet: &Fleet) -> RevisionLocation {
        let mut appspec = "version: 0.0\nos: linux\n".to_owned();
        if let Some(destination) = &self.destination {
            let destination = destination.display();
            appspec += &format!("files:\n  - source: installed\n    destination: {destination}\n");
        }
        appspec += "hooks:\n";
        for event in self.scripts.keys() {
            appspec += &format!("  {event}:\n    - location: {event}.sh\n");
        }
        let scripts = self
            .scripts
            .into_iter()
            .map(|(event, text)| (format!("{event}.sh"), text));
        let mut files: Vec<_> = self.files.into_iter().chain(scripts).collect();
        files.push(("appspec.yml".into(), appspec));
        files.push(("name".into(), self.name));
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        fleet.push(&files).await
    }
}

/// Makes `script` (`<revision>.<event>`) fail on a host from now on, or stop failing.
pub fn set_failing(host: &Host, script: &str, fails: bool) {
    let file = host.folder.join(format!("fail.{script}"));
    if fails {
        fs::write(file, "")
    } else {
        fs::remove_file(file)
    }
    .expect("the file can be changed");
}

/// Makes `script` (`<revision>.<event>`) wait on a host.
pub fn hold(host: &Host, script: &str) -> Held {
    let held = Held {
        folder: host.folder.clone(),
        script: script.into(),
    };
    fs::write(held.file(), "").expect("the file can be written");
    held
}

impl Held {
    fn file(&self) -> PathBuf {
        self.folder.join(format!("hold.{}", self.script))
    }

    /// Waits until a deployment runs it; `deployment` may be a part of the id.
    pub async fn runs(&self, deployment: &str) {
        let wanted = format!("{deployment} {}", self.script);
        wait::until("the script that is held runs", async || {
            let ran = noted(&self.folder);
            if ran.contains(&wanted) {
                Ok(())
            } else {
                Err(ran)
            }
        })
        .await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.file());
    }
}

/// The scripts that a deployment ran on a host, as `<revision>.<event>`, in order.
///
/// # Panics
///
/// If the host ran any script twice in one deployment.
pub fn runs(host: &Host, deployment: &str) -> Vec<String> {
    let ran = noted(&host.folder);
    let mut seen = HashSet::new();
    for run in &ran {
        assert!(seen.insert(run), "twice on {}: {run}: {ran:#?}", host.name);
    }
    let of = |run: &String| {
        run.strip_prefix(deployment)?
            .strip_prefix(' ')
            .map(str::to_owned)
    };
    ran.iter().filter_map(of).collect()
}

fn noted(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
