//! What operators declare: applications, revisions, deployment groups and configurations, on-premises instances.
//!
//! Every operation is a function of one transaction and a [request](crate::request) that was checked; it looks for what
//! the request names, then for what is in the way, and names a refusal as AWS does.

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

/// A row whose only column is a name, which it is sorted by.
fn by_name(row: &Row<'_>) -> Result<Option<(String, String)>, SqlError> {
    let name: String = row.get(0)?;
    Ok(Some((name.clone(), name)))
}
