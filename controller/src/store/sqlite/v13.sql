-- The order in which rows were made is a column of its own, for every engine. Foreign keys are not enforced meanwhile.

-- Changes of state are noted by the code that makes them.
DROP TRIGGER deployment_happened;
DROP TRIGGER deployment_changed;
DROP TRIGGER target_changed;
ALTER TABLE happenings RENAME TO state_changes;
ALTER TABLE wishes RENAME TO pending_deployments;
ALTER TABLE notices RENAME TO bucket_notifications;

CREATE TABLE new_deployments (
    id        TEXT PRIMARY KEY,
    sequence  INTEGER NOT NULL,            -- the order in which deployments were made
    group_id  TEXT NOT NULL REFERENCES deployment_groups (id) ON DELETE CASCADE,
    created   INTEGER NOT NULL,
    status    TEXT NOT NULL,
    progress  TEXT NOT NULL,               -- DeploymentState
    rules     TEXT NOT NULL,               -- Rules
    snapshot  TEXT NOT NULL,               -- DeploymentInfo as it was at the creation
    revision  TEXT NOT NULL,               -- RevisionLocation; its text is its identity
    relations TEXT NOT NULL,               -- Relations
    retire_at INTEGER                      -- when the original instances of a blue/green one are deregistered
) STRICT;
INSERT INTO new_deployments
    SELECT id, rowid, group_id, created, status, progress, rules, snapshot,
        coalesce(CASE WHEN json_valid(snapshot) THEN snapshot -> '$.revision' END, '{}'), relations, retire_at
    FROM deployments;
DROP TABLE deployments;
ALTER TABLE new_deployments RENAME TO deployments;
CREATE INDEX deployments_by_sequence ON deployments (sequence);
-- A list reads one of these and nothing else.
CREATE INDEX deployments_of_group ON deployments (group_id, created, sequence, id);
CREATE INDEX deployments_by_time ON deployments (created, sequence, id);
CREATE INDEX deployments_by_status ON deployments (status, created, sequence, id);
CREATE INDEX deployments_of_group_by_status ON deployments (group_id, status, created, sequence, id);
CREATE INDEX deployments_active ON deployments (group_id) WHERE status IN ('Created', 'InProgress', 'Ready');
CREATE INDEX deployments_retiring ON deployments (retire_at) WHERE retire_at IS NOT NULL;

CREATE TABLE new_instances (
    sequence         INTEGER PRIMARY KEY,  -- the order in which instances were registered
    arn              TEXT NOT NULL UNIQUE,
    name             TEXT NOT NULL,
    principal        TEXT NOT NULL,        -- IAM user or session ARN; also the agent's host identifier
    registered       INTEGER NOT NULL,
    deregistered     INTEGER,
    tags             TEXT NOT NULL,
    agent_version    TEXT,
    last_seen        INTEGER,
    accepted_signers TEXT                  -- whose specifications the agent accepts, as it said last
) STRICT;
INSERT INTO new_instances
    SELECT rowid, arn, name, principal, registered, deregistered, tags, agent_version, last_seen, accepted_signers
    FROM instances;
DROP TABLE instances;
ALTER TABLE new_instances RENAME TO instances;
CREATE UNIQUE INDEX instances_by_name ON instances (name) WHERE deregistered IS NULL;
CREATE UNIQUE INDEX instances_by_principal ON instances (principal) WHERE deregistered IS NULL;
CREATE INDEX instances_of_name ON instances (name, registered);

CREATE TABLE new_revisions (
    sequence       INTEGER PRIMARY KEY,    -- the order in which revisions were registered
    application_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    location       TEXT NOT NULL,          -- RevisionLocation; its text is its identity
    description    TEXT,
    registered     INTEGER NOT NULL,
    first_used     INTEGER,
    last_used      INTEGER,
    UNIQUE (application_id, location)
) STRICT;
INSERT INTO new_revisions
    SELECT rowid, application_id, location, description, registered, first_used, last_used FROM revisions;
DROP TABLE revisions;
ALTER TABLE new_revisions RENAME TO revisions;
-- What lists of revisions are sorted by; the time is equal where a revision was never used.
CREATE INDEX revisions_by_registration ON revisions (application_id, registered);
CREATE INDEX revisions_by_first_use ON revisions (application_id, coalesce(first_used, 0));
CREATE INDEX revisions_by_last_use ON revisions (application_id, coalesce(last_used, 0));

-- The deployment configuration that the settings name.
DROP INDEX deployment_groups_by_config;
ALTER TABLE deployment_groups ADD COLUMN config_name TEXT;
UPDATE deployment_groups SET config_name = settings ->> '$.deploymentConfigName' WHERE json_valid(settings);
CREATE INDEX deployment_groups_by_config ON deployment_groups (config_name);
