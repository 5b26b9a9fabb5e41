//! Doors to private parsers for the fuzz targets, which are not part of the program.

use std::path::Path;

pub use crate::deployment::ledger::fuzzing::ledger_record;

/// Reads an on-premises configuration file.
pub fn on_premises(path: &Path) {
    drop(crate::identity::on_premises::read(path, None));
}
