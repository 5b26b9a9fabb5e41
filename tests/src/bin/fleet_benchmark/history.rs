//! A long history: finished deployments in the database, copied from one.

use std::path::Path;

use rusqlite::Connection;

/// The number of deployment groups that are added.
const GROUPS: usize = 50;

/// Half of the deployments belong to the copied one's group, the others to added groups. Each has
/// one host, its events and its commands.
const COPIES: &str = "
    BEGIN;
    CREATE TEMP TABLE numbers AS
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < max({NUMBER}, 10000)) SELECT n FROM n;
    INSERT INTO deployment_groups (id, application_id, name, settings, tags, config_name, last_attempted, last_successful)
        SELECT printf('g%02d', n - 1), application_id, printf('group%02d', n - 1), settings, tags, config_name,
            last_attempted, last_successful
        FROM deployment_groups g, numbers
        WHERE g.id = (SELECT group_id FROM deployments WHERE id = '{ID}') AND n <= {GROUPS};
    INSERT INTO deployments
            (id, sequence, group_id, created, status, progress, rules, snapshot, revision, relations, created_by)
        SELECT printf('d-%09d', n), sequence + n,
            CASE WHEN n % 2 = 0 THEN group_id ELSE printf('g%02d', n / 2 % {GROUPS}) END,
            created - n, status, progress, rules, snapshot, revision, relations, created_by
        FROM deployments, numbers WHERE id = '{ID}' AND n <= {NUMBER};
    INSERT INTO targets
            (deployment_id, position, target_id, arn, host, status, updated, events, label, class, stage, attempted)
        SELECT printf('d-%09d', n), 0, target_id, arn, host, status, updated, events, label, class, stage, attempted
        FROM targets, numbers WHERE deployment_id = '{ID}' AND n <= {NUMBER};
    INSERT INTO commands (id, deployment_id, target, event, host, offered, noop)
        SELECT printf('d-%09d.%s', n, substr(id, 13)), printf('d-%09d', n), target, event, host, offered, noop
        FROM numbers, commands WHERE deployment_id = '{ID}' AND n <= {NUMBER};
    INSERT INTO health (group_id, target_id, healthy, revision, deployment_id, changed)
        SELECT printf('g%02d', n % {GROUPS}), printf('host%05d', n - 1), 1, revision, deployment_id, changed
        FROM health h, numbers
        WHERE h.group_id = (SELECT group_id FROM deployments WHERE id = '{ID}') AND h.target_id = 'host00000' AND n <= 10000;
    COMMIT;";

/// Copies a finished deployment to one host. The controller must not run.
pub(crate) fn add(database: &Path, id: &str, number: usize) -> rusqlite::Result<()> {
    let connection = Connection::open(database)?;
    let script = COPIES
        .replace("{ID}", id)
        .replace("{NUMBER}", &number.to_string())
        .replace("{GROUPS}", &GROUPS.to_string());
    connection.execute_batch(&script)
}
