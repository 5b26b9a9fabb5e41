//! Revisions on a lone host that tell which of them is installed, and which of their scripts ran.

use std::fs;

use codedeploy_tests::stub::lone::Lone;

/// The events of a deployment, in order.
pub(crate) const ALL: [&str; 4] = [
    "DownloadBundle",
    "Install",
    "ApplicationStart",
    "ValidateService",
];

/// A revision that installs its version as `srv/VERSION`, and whose scripts note their event in
/// `notes` before they do this.
pub(crate) fn revision(
    host: &Lone,
    version: &str,
    start: &str,
    validate: &str,
) -> Vec<(&'static str, String)> {
    let folder = host.path("srv");
    let note = format!(
        "echo \"{version} $LIFECYCLE_EVENT\" >> {}",
        host.path("notes").display()
    );
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: VERSION\n    destination: {}\nhooks:\n  ApplicationStart:\n    \
         - location: start.sh\n  ValidateService:\n    - location: validate.sh\n",
        folder.display()
    );
    vec![
        ("appspec.yml", appspec),
        ("VERSION", version.to_owned()),
        ("start.sh", format!("#!/bin/sh\n{note}\n{start}\n")),
        ("validate.sh", format!("#!/bin/sh\n{note}\n{validate}\n")),
    ]
}

/// Deploys a revision to the group `web` with success, as far as these events.
pub(crate) async fn deployed(
    host: &Lone,
    id: &str,
    files: &[(&'static str, String)],
    events: &[&str],
) {
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    host.deployment("web", id, &files);
    for event in events {
        let completion = host.perform(id, event).await;
        assert_eq!(
            completion.status, "Succeeded",
            "{event} of {id}: {completion:?}"
        );
    }
}

/// The text of a file below the host's folder; empty where there is none.
pub(crate) fn text(host: &Lone, name: &str) -> String {
    fs::read_to_string(host.path(name))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
