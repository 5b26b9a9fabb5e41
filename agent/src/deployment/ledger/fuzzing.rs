//! The door to the files of the ledger for the fuzz targets.

use std::path::Path;

use super::official;
use super::record::{self, Ended, InProgress};

/// Reads a file of the ledger in each of its forms.
pub fn ledger_record(path: &Path) {
    drop(record::read::<InProgress>(path));
    drop(record::read::<Ended>(path));
    drop(official::read(path));
}
