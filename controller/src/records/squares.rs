//! The targets of a deployment at a glance: the progress of each, from an index, without reading its
//! events.

use codedeploy_api::codedeploy::TargetLabel;
use codedeploy_planner::deployment_state::Stage;
use codedeploy_planner::plan::Class;

use super::Target;
use crate::records::columns::Column;
use crate::store::{SqlError, Tx};

/// A target at a glance.
#[derive(Debug, Clone)]
pub(crate) struct Square {
    /// Empty in a large deployment.
    pub(crate) name: String,
    pub(crate) label: Option<TargetLabel>,
    pub(crate) class: Class,
    pub(crate) stage: Stage,
}

const NAMES: &str = "SELECT target_id FROM targets WHERE deployment_id = ?1 ORDER BY position";
const CLASSES: &str = "SELECT class, stage, label, position FROM targets WHERE deployment_id = ?1
    ORDER BY class, stage, label, position";
/// The sums keep the engine from reading every row in the order of positions.
const OF_CLASSES: &str = "SELECT position FROM targets
    WHERE deployment_id = ?1 AND class IN (?2, ?3) AND position + 0 >= ?4
    ORDER BY position + 0 LIMIT ?5";
const FROM: &str = "SELECT position FROM targets
    WHERE deployment_id = ?1 AND position >= ?2 ORDER BY position LIMIT ?3";
const REACHED: &str =
    "SELECT event, count(*) FROM commands WHERE deployment_id = ?1 GROUP BY event";

/// Returns the targets of a deployment in the order of attempt. If there are more than `named`, they
/// have no names, which are in no index.
pub(crate) fn all(tx: &Tx<'_>, deployment_id: &str, named: usize) -> Result<Vec<Square>, SqlError> {
    let mut found = tx.query_all(CLASSES, [deployment_id], |row| {
        let label = row.get::<Option<String>>(2)?.map(TargetLabel::from);
        let (class, stage): (Column<Class>, Column<Stage>) = (row.get(0)?, row.get(1)?);
        let square = Square {
            name: String::new(),
            label,
            class: class.0,
            stage: stage.0,
        };
        Ok((row.get::<usize>(3)?, square))
    })?;
    found.sort_unstable_by_key(|(position, _)| *position);
    let mut squares: Vec<Square> = found.into_iter().map(|(_, square)| square).collect();
    if squares.len() <= named {
        let names = tx.query_all(NAMES, [deployment_id], |row| row.get(0))?;
        for (square, name) in squares.iter_mut().zip(names) {
            square.name = name;
        }
    }
    Ok(squares)
}

/// Returns targets of some classes, or all, in the order of attempt from a position on.
pub(crate) fn page(
    tx: &Tx<'_>,
    deployment_id: &str,
    classes: Option<[Class; 2]>,
    from: usize,
    most: usize,
) -> Result<Vec<Target>, SqlError> {
    let positions: Vec<usize> = match classes {
        Some([one, other]) => tx.query_all(
            OF_CLASSES,
            (deployment_id, Column(one), Column(other), from, most),
            |row| row.get(0),
        )?,
        None => tx.query_all(FROM, (deployment_id, from, most), |row| row.get(0))?,
    };
    let mut targets = Vec::new();
    for position in positions {
        targets.extend(Target::at(tx, deployment_id, position)?);
    }
    Ok(targets)
}

/// Returns the number of targets that got a command, for each lifecycle event by its place in a
/// target's list.
pub(crate) fn reached(tx: &Tx<'_>, deployment_id: &str) -> Result<Vec<(usize, usize)>, SqlError> {
    tx.query_all(REACHED, [deployment_id], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::way_of;

    #[test]
    fn no_events_are_read() {
        for sql in [CLASSES, OF_CLASSES, REACHED] {
            let way = way_of(sql);
            assert!(way.contains("COVERING INDEX"), "{way}");
        }
        assert!(!way_of(CLASSES).contains("TEMP B-TREE"));
        assert!(!way_of(NAMES).contains("TEMP B-TREE"));
    }
}
