-- The scripts that ran for a command, with their times. Hosts report them if traces are configured.
CREATE TABLE script_runs (
    deployment_id TEXT NOT NULL,
    target        INTEGER NOT NULL,
    event         INTEGER NOT NULL,
    runs          TEXT NOT NULL,           -- [ScriptRun]
    PRIMARY KEY (deployment_id, target, event),
    FOREIGN KEY (deployment_id, target) REFERENCES targets (deployment_id, position) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
