//! A plan as JSON. New members may be added; a change of meaning raises `version`.

use codedeploy_hooks::install::{PathChange, Permissions};
use codedeploy_hooks::lifecycle::Origin;
use serde_json::{Value, json};

use crate::deployment::preview::{EventPreview, Preview, ScriptPreview};

const VERSION: u32 = 1;

pub(super) fn plan(preview: &Preview) -> Value {
    let mut files = Files::default();
    for change in preview.install.changes() {
        let list = match change {
            PathChange::Created(_) => &mut files.created,
            PathChange::Replaced(_) => &mut files.replaced,
            PathChange::Removed(_) => &mut files.removed,
            PathChange::Kept(_) => &mut files.kept,
            PathChange::Unchanged(_) => &mut files.unchanged,
        };
        list.push(change.path().display().to_string());
    }
    json!({
        "version": VERSION,
        "can_start": preview.can_start(),
        "events": preview.events.iter().map(event).collect::<Vec<_>>(),
        "files": {
            "created": files.created,
            "replaced": files.replaced,
            "removed": files.removed,
            "kept": files.kept,
            "unchanged": files.unchanged,
        },
        "permissions": preview.install.permissions().iter().map(permissions).collect::<Vec<_>>(),
        "conflicts": preview.conflicts,
        "warnings": preview.warnings,
    })
}

/// A deployment that would fail before there is anything to plan.
pub(super) fn failure(error: &str) -> Value {
    json!({ "version": VERSION, "can_start": false, "error": error })
}

#[derive(Default)]
struct Files {
    created: Vec<String>,
    replaced: Vec<String>,
    removed: Vec<String>,
    kept: Vec<String>,
    unchanged: Vec<String>,
}

fn event(event: &EventPreview) -> Value {
    let origin = event.origin.map(|origin| match origin {
        Origin::ThisDeployment => "this_deployment",
        Origin::LastSuccessful => "last_successful",
        Origin::MostRecent => "most_recent",
    });
    let mut document = json!({
        "event": event.event.name(),
        "origin": origin,
        "archive": event.archive.as_ref().map(|path| path.display().to_string()),
        "scripts": event.scripts.iter().map(script).collect::<Vec<_>>(),
    });
    if let Some(note) = &event.note {
        document["note"] = json!(note);
    }
    document
}

fn script(
    ScriptPreview {
        script,
        problems,
        warnings,
    }: &ScriptPreview,
) -> Value {
    json!({
        "location": script.location.as_path().display().to_string(),
        "timeout_seconds": script.timeout.as_secs(),
        "runas": script.runas,
        "sudo": script.sudo,
        "problems": problems,
        "warnings": warnings,
    })
}

fn permissions(permissions: &Permissions) -> Value {
    json!({
        "path": permissions.path,
        "mode": permissions.mode.as_ref().map(|mode| format!("{mode:0>4}")),
        "owner": permissions.owner,
        "group": permissions.group,
        "acl": permissions.acl,
        "selinux_type": permissions.selinux_type,
    })
}
