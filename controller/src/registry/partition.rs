//! The region and the account of a database: its ARNs have them, and its hosts and clients sign for them.

use rusqlite::{OptionalExtension, Transaction};

use crate::config::Partition;

#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    #[error(
        "the database is of region {} and account {}, and the settings say region {} and account {}: every host and \
         client of it signs for the former. Set region and account_id to those again; or begin with another data \
         directory, and add every host and key anew",
        found.region, found.account_id, wanted.region, wanted.account_id
    )]
    Foreign { found: Partition, wanted: Partition },
    #[error("cannot read what region and account the database is of")]
    Database(#[from] rusqlite::Error),
}

/// What a database was first used with, if it was.
pub fn of(tx: &Transaction<'_>) -> rusqlite::Result<Option<Partition>> {
    tx.prepare_cached("SELECT region, account_id FROM own_partition")?
        .query_row([], |row| Ok(Partition { region: row.get(0)?, account_id: row.get(1)? }))
        .optional()
}

/// Writes to the database what it has.
pub fn touch(tx: &Transaction<'_>, own: &Partition) -> rusqlite::Result<usize> {
    tx.prepare_cached("UPDATE own_partition SET region = ?1")?.execute([&own.region])
}

/// Makes a partition the database's own, as long as there is no key and no host that signs for another.
pub fn claim(tx: &Transaction<'_>, wanted: &Partition) -> Result<(), PartitionError> {
    if let Some(found) = of(tx)?.filter(|found| found != wanted) {
        let used = "SELECT EXISTS (SELECT 1 FROM credentials) OR EXISTS (SELECT 1 FROM instances)";
        if tx.query_row(used, [], |row| row.get(0))? {
            return Err(PartitionError::Foreign { found, wanted: wanted.clone() });
        }
    }
    let replace = "INSERT OR REPLACE INTO own_partition (id, region, account_id) VALUES (1, ?1, ?2)";
    tx.execute(replace, (&wanted.region, &wanted.account_id))?;
    Ok(())
}
