-- The script output of a command, beyond the last lines in its diagnostics.
CREATE TABLE script_logs (
    deployment_id TEXT NOT NULL,
    target        INTEGER NOT NULL,
    event         INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,        -- of the whole text; reserved when its first part arrives
    missing       INTEGER NOT NULL,        -- the number of parts that have not arrived
    PRIMARY KEY (deployment_id, target, event),
    FOREIGN KEY (deployment_id, target) REFERENCES targets (deployment_id, position) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE script_log_parts (
    deployment_id TEXT NOT NULL,
    target        INTEGER NOT NULL,
    event         INTEGER NOT NULL,
    part          INTEGER NOT NULL,
    text          BLOB NOT NULL,           -- compressed with gzip
    PRIMARY KEY (deployment_id, target, event, part),
    FOREIGN KEY (deployment_id, target, event) REFERENCES script_logs (deployment_id, target, event) ON DELETE CASCADE
) STRICT;
