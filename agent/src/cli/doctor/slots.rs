//! The slots of blue/green deployments on this host; no check without them.

use crate::cli::doctor::Check;
use crate::config::Settings;
use crate::deployment::slots::status::{self, Contents, GroupSlots};
use crate::deployment_root::Store;

const NAME: &str = "slots";

/// One check for each deployment group with slots.
pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let store = Store::new(&settings.root_dir, &settings.ongoing_deployment_tracking);
    let groups = status::all(&store).unwrap_or_default();
    groups.iter().map(judge).collect()
}

fn judge(group: &GroupSlots) -> Check {
    let text = group.to_string();
    let is_prepared = |contents: &Contents| matches!(contents, Contents::Prepared { .. });
    if group.problem.is_some() {
        let advice = "move away what is there, or lead the link to a slot (ln -sfn)";
        return Check::problem(NAME, text, advice);
    }
    if group.switching {
        let advice =
            "the agent finishes it at its next start, codedeploy-local with its next deployment";
        return Check::warning(NAME, text, advice);
    }
    if is_prepared(&group.blue) || is_prepared(&group.green) {
        let advice = "wait for its deployment, or take it back with codedeploy-agent rollback";
        return Check::warning(NAME, text, advice);
    }
    Check::ok(NAME, text)
}
