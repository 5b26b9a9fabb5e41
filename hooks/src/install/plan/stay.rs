//! Decides which planned objects stay in place, because the host has them already. Pure.

use crate::install::decision::Decision;
use crate::install::paths::Paths;
use crate::install::same::Same;
use crate::install::snapshot::Revision;
use crate::install::verified::Verified;

/// The cost of a change of one name, in bytes that could be copied meanwhile.
const ONE_CHANGE: u64 = 16 * 1024;

/// The cost of a folder's contents.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Saved if the objects that are the same stay in place.
    saved: u64,
    /// Paid for the changes in a folder that stays; a folder that is made anew takes its place in
    /// one change.
    paid: u64,
}

/// Lets objects stay in place that are the `same` as planned. A folder stays if that costs less
/// than to make it anew; an object can stay only if the folder around it does.
pub(in crate::install) fn stay(
    decision: &mut Decision,
    same: Same,
    revision: &Revision,
    paths: &Paths,
) {
    let Same { files, folders } = same;
    if files.is_empty() {
        return;
    }
    let worthwhile = worthwhile(decision, &files, &folders, revision, paths);
    let is_around = |decision: &Decision, number: u32| {
        let path = decision.planned[number as usize].path;
        let folder = paths
            .parent(path)
            .and_then(|parent| decision.places.get(parent));
        folder.is_none_or(|folder| decision.planned[*folder as usize].stays)
    };
    // A folder comes before its contents.
    for number in worthwhile {
        if is_around(decision, number) {
            decision.planned[number as usize].stays = true;
        }
    }
    let mut stays = files;
    stays.retain(|(number, _)| is_around(decision, *number));
    for (number, _) in &stays {
        decision.planned[*number as usize].stays = true;
    }
    decision.stays = stays;
    let Decision {
        planned,
        goes,
        removed,
        places,
        ..
    } = decision;
    let stays = |path| {
        places
            .get(path)
            .is_some_and(|number| planned[*number as usize].stays)
    };
    removed.retain(|path| !stays(*path));
    for planned in planned.iter().filter(|planned| planned.stays) {
        goes.remove(planned.path);
    }
}

/// Returns the numbers of the folders that cost less if they stay, in order.
fn worthwhile(
    decision: &Decision,
    files: &[(u32, Verified)],
    folders: &[u32],
    revision: &Revision,
    paths: &Paths,
) -> Vec<u32> {
    let planned = &decision.planned;
    let place = |path| {
        paths
            .parent(path)
            .and_then(|parent| decision.places.get(parent))
    };
    // The costs of the contents, by the number of the folder.
    let mut costs = vec![Cost::default(); planned.len()];
    let (mut files, mut folders) = (
        files.iter().rev().peekable(),
        folders.iter().rev().peekable(),
    );
    let mut worthwhile = Vec::new();
    for path in &decision.removed {
        if let Some(folder) = place(*path).filter(|_| !decision.places.contains(*path)) {
            costs[*folder as usize].paid += ONE_CHANGE;
        }
    }
    for (index, object) in planned.iter().enumerate().rev() {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let inside = costs[index];
        let cost = if files.next_if(|(file, _)| *file == number).is_some() {
            let saved = ONE_CHANGE + revision.object(object.source).size;
            Cost { saved, paid: 0 }
        } else if folders.next_if(|folder| **folder == number).is_some()
            && inside.saved > inside.paid
        {
            worthwhile.push(number);
            inside
        } else {
            let (saved, paid) = (0, ONE_CHANGE);
            Cost { saved, paid }
        };
        if let Some(folder) = place(object.path) {
            let around = &mut costs[*folder as usize];
            around.saved = around.saved.saturating_add(cost.saved);
            around.paid = around.paid.saturating_add(cost.paid);
        }
    }
    worthwhile.reverse();
    worthwhile
}
