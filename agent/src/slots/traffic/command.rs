//! A script that moves traffic: its place, and the variables that describe the change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use codedeploy_hooks::appspec::Script;
use codedeploy_hooks::appspec::strategy::traffic::{Command, ScriptPlace};
use codedeploy_hooks::slots::Side;

use super::Change;

/// One run of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The folder that the script's location is in: the unpacked revision, or one of the host.
    pub archive: PathBuf,
    pub script: Script,
    /// `FROM_SLOT`, `FROM_DIR`, `FROM_PORT`, and the same with `TO_`. Those of a slot, or of a
    /// port, that does not exist are absent.
    pub variables: BTreeMap<String, String>,
}

/// The run of `command` for a change; `archive` is the unpacked revision.
pub(super) fn call(command: &Command, change: &Change, archive: &Path) -> Call {
    let (archive, location) = match &command.script {
        ScriptPlace::Revision(location) => (archive.to_path_buf(), location.clone()),
        ScriptPlace::Host { folder, name } => (folder.clone(), name.clone()),
    };
    let script = Script {
        location,
        timeout: command.timeout,
        runas: None,
        sudo: false,
    };
    let mut variables = BTreeMap::new();
    if let Some(from) = &change.from {
        describe("FROM", from, &mut variables);
    }
    describe("TO", &change.to, &mut variables);
    Call {
        archive,
        script,
        variables,
    }
}

fn describe(prefix: &str, side: &Side, variables: &mut BTreeMap<String, String>) {
    let mut add = |name: &str, value: String| variables.insert(format!("{prefix}_{name}"), value);
    add("SLOT", side.name.to_string());
    add("DIR", side.folder.display().to_string());
    if let Some(port) = side.port {
        add("PORT", port.to_string());
    }
}
