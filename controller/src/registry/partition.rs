//! The region and the account of a database: its ARNs contain them, and its hosts and clients use
//! them in signatures.

use crate::config::Partition;
use crate::store::{SqlError, Tx};

#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    #[error(
        "the database belongs to region {} and account {}, but the settings have region {} and account {}: every host and \
         client of it signs for the former. Set region and account_id back; or begin with another data \
         directory, and add every host and key anew",
        found.region, found.account_id, wanted.region, wanted.account_id
    )]
    Foreign { found: Partition, wanted: Partition },
    #[error("cannot read the region and account of the database")]
    Database(#[from] SqlError),
}

/// Returns the partition that a database was first used with, if any.
pub fn of(tx: &Tx<'_>) -> Result<Option<Partition>, SqlError> {
    tx.query_opt("SELECT region, account_id FROM own_partition", (), |row| {
        Ok(Partition {
            region: row.get(0)?,
            account_id: row.get(1)?,
        })
    })
}

/// Writes the present values to the database again.
pub fn touch(tx: &Tx<'_>, own: &Partition) -> Result<usize, SqlError> {
    tx.execute("UPDATE own_partition SET region = ?1", [&own.region])
}

/// Sets a database's partition, as long as no key and no host signs for another one.
pub fn claim(tx: &Tx<'_>, wanted: &Partition) -> Result<(), PartitionError> {
    if let Some(found) = of(tx)?.filter(|found| found != wanted) {
        let used = "SELECT EXISTS (SELECT 1 FROM credentials) OR EXISTS (SELECT 1 FROM instances)";
        if tx.query_one(used, (), |row| row.get(0))? {
            return Err(PartitionError::Foreign {
                found,
                wanted: wanted.clone(),
            });
        }
    }
    let replace = "INSERT INTO own_partition (id, region, account_id) VALUES (1, ?1, ?2)
        ON CONFLICT (id) DO UPDATE SET region = excluded.region, account_id = excluded.account_id";
    tx.execute(replace, (&wanted.region, &wanted.account_id))?;
    Ok(())
}
