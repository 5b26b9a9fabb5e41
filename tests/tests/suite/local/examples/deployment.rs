//! One run of `codedeploy-local` in a world, and its output.

use super::readme::Step;
use super::world::World;

pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) succeeded: bool,
    /// Lifecycle events in the order of the output.
    events: Vec<String>,
    /// From the deployment's script log; the events from the first to the last.
    scripts: Vec<Step>,
    /// The whole output.
    pub(crate) output: String,
}

/// Deploys the folder or zip file `bundle` with `environment` (`NAME=value …`) added to the hooks'
/// environment.
pub(crate) fn deploy(world: &mut World, bundle: &str, environment: &str) -> Deployment {
    let kind = if bundle.ends_with(".zip") {
        "zip"
    } else {
        "directory"
    };
    let command = format!(
        "{environment} timeout --kill-after=5 240 codedeploy-local --bundle-location {bundle} --type {kind}"
    );
    let ran = world.run(&command);
    let folder = ran
        .output
        .lines()
        .find_map(|line| line.strip_prefix("Starting to execute deployment from within folder "))
        .unwrap_or_else(|| panic!("{command}: status {}\n{}", ran.status, ran.output));
    let events = ran
        .output
        .lines()
        .filter_map(event)
        .map(str::to_owned)
        .collect();
    let log = world.say(&format!(
        "cat {folder}/logs/scripts.log 2>/dev/null || true"
    ));
    Deployment {
        id: folder.rsplit('/').next().unwrap_or_default().to_owned(),
        succeeded: ran.status == 0,
        events,
        scripts: scripts(&log),
        output: format!("{}\n{log}", ran.output),
    }
}

/// The event of a line like `  BeforeInstall        succeeded in 0.02 s`.
fn event(line: &str) -> Option<&str> {
    let (event, rest) = line.strip_prefix("  ")?.split_once(' ')?;
    let rest = rest.trim_start();
    (rest.starts_with("succeeded in ") || rest.starts_with("failed after ")).then_some(event)
}

fn scripts(log: &str) -> Vec<Step> {
    let mut event = "";
    let mut steps = Vec::new();
    for line in log.lines() {
        // After `YYYY-MM-DD HH:MM:SS `.
        let entry = line.get(20..).unwrap_or_default();
        if let Some(name) = entry.strip_prefix("LifecycleEvent - ") {
            event = name;
        } else if let Some(location) = entry.strip_prefix("Script - ") {
            steps.push(Step {
                event: event.to_owned(),
                script: Some(location.to_owned()),
            });
        }
    }
    steps
}

impl Deployment {
    /// Checks that it succeeded with the events and scripts in `steps`, in that order.
    pub(crate) fn went_as(&self, steps: &[Step]) {
        assert!(self.succeeded, "{}", self.output);
        assert!(
            self.output
                .contains("AppSpec file valid. Local deployment successful"),
            "{}",
            self.output
        );

        let mut events: Vec<_> = steps.iter().map(|step| &step.event).collect();
        events.dedup();
        let acted: Vec<_> = self
            .events
            .iter()
            .filter(|event| self.acts(event))
            .collect();
        assert_eq!(
            acted, events,
            "events differ from the README's table:\n{}",
            self.output
        );

        let scripts: Vec<_> = steps
            .iter()
            .filter(|step| step.script.is_some())
            .cloned()
            .collect();
        assert_eq!(
            self.scripts, scripts,
            "scripts differ from the README's table:\n{}",
            self.output
        );
    }

    /// Checks that it failed in `script`, with a cause that contains `cause`.
    pub(crate) fn failed_in(&self, event: &str, script: &str, cause: &str) {
        assert!(!self.succeeded, "{}", self.output);
        assert_eq!(
            self.events.last().map(String::as_str),
            Some(event),
            "{}",
            self.output
        );
        let last = self.scripts.last().and_then(|step| step.script.as_deref());
        assert_eq!(last, Some(script), "{}", self.output);
        assert!(
            self.output.contains(cause),
            "{cause:?} is not in:\n{}",
            self.output
        );
    }

    /// Whether `event` has an effect in this deployment.
    fn acts(&self, event: &str) -> bool {
        ["DownloadBundle", "Install"].contains(&event)
            || self.scripts.iter().any(|step| step.event == event)
    }
}

/// Zips the folder `bundle` as `aws deploy push` does; returns the file's path in the world.
pub(crate) fn zipped(world: &mut World, bundle: &str) -> String {
    let file = format!("{bundle}.zip");
    world.say(&format!(
        r#"python3 - {bundle} {file} <<'PYTHON'
import os, sys, zipfile
source, target = sys.argv[1:]
with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
    for folder, _, files in os.walk(source):
        for name in files:
            path = os.path.join(folder, name)
            archive.write(path, os.path.relpath(path, source))
PYTHON"#
    ));
    file
}
