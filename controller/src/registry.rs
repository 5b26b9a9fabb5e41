//! Operators' objects: applications, revisions, deployment groups and configurations, on-premises
//! instances.
//!
//! Every operation is a function of one transaction and a checked [request](crate::request). It
//! first looks up the named objects, then checks for conflicts, and returns AWS's errors.

pub mod applications;
pub mod audit;
pub mod configs;
pub mod dangling_references;
pub mod groups;
pub mod instances;
pub mod partition;
pub mod revisions;
pub mod tags;
pub mod tokens;

use crate::store::{Row, SqlError};

/// A row whose only column is a name, by which it is sorted.
fn by_name(row: &Row<'_>) -> Result<Option<(String, String)>, SqlError> {
    let name: String = row.get(0)?;
    Ok(Some((name.clone(), name)))
}
