CREATE TABLE credentials (
    access_key_id TEXT PRIMARY KEY,
    secret        BLOB NOT NULL,           -- sealed by the vault
    role          TEXT NOT NULL,
    arn           TEXT NOT NULL,
    created       INTEGER NOT NULL,
    revoked       INTEGER
) STRICT;

CREATE TABLE applications (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    tags    TEXT NOT NULL
) STRICT;

CREATE TABLE revisions (
    application_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    location       TEXT NOT NULL,          -- RevisionLocation; its text is its identity
    description    TEXT,
    registered     INTEGER NOT NULL,
    first_used     INTEGER,
    last_used      INTEGER,
    PRIMARY KEY (application_id, location)
) STRICT;

CREATE TABLE instances (
    arn           TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    principal     TEXT NOT NULL,           -- IAM user or session ARN; also the agent's host identifier
    registered    INTEGER NOT NULL,
    deregistered  INTEGER,
    tags          TEXT NOT NULL,
    agent_version TEXT,
    last_seen     INTEGER
) STRICT;
CREATE UNIQUE INDEX instances_by_name ON instances (name) WHERE deregistered IS NULL;
CREATE UNIQUE INDEX instances_by_principal ON instances (principal) WHERE deregistered IS NULL;
CREATE INDEX instances_of_name ON instances (name, registered);

CREATE TABLE deployment_groups (
    id              TEXT PRIMARY KEY,
    application_id  TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    settings        TEXT NOT NULL,         -- DeploymentGroupSettings
    tags            TEXT NOT NULL,
    target_revision TEXT,
    last_attempted  TEXT,                  -- a deployment's id
    last_successful TEXT,                  -- a deployment's id
    UNIQUE (application_id, name)
) STRICT;

CREATE TABLE deployments (
    id       TEXT PRIMARY KEY,
    group_id TEXT NOT NULL REFERENCES deployment_groups (id) ON DELETE CASCADE,
    created  INTEGER NOT NULL,
    status   TEXT NOT NULL,
    progress TEXT NOT NULL,                -- Progress
    rules    TEXT NOT NULL,                -- Rules
    snapshot TEXT NOT NULL                 -- DeploymentInfo as it was at the creation
) STRICT;
CREATE INDEX deployments_of_group ON deployments (group_id, created);
CREATE INDEX deployments_by_time ON deployments (created);
CREATE INDEX deployments_active ON deployments (group_id) WHERE status IN ('Created', 'InProgress');

CREATE TABLE targets (
    deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,        -- the order in which targets are attempted
    target_id     TEXT NOT NULL,
    arn           TEXT NOT NULL,
    host          TEXT NOT NULL,           -- host identifier
    status        TEXT NOT NULL,
    updated       INTEGER NOT NULL,
    events        TEXT NOT NULL,           -- [Event]
    PRIMARY KEY (deployment_id, position),
    UNIQUE (deployment_id, target_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE commands (
    sequence      INTEGER PRIMARY KEY,     -- the order in which commands were made
    id            TEXT NOT NULL UNIQUE,
    deployment_id TEXT NOT NULL,
    target        INTEGER NOT NULL,
    event         INTEGER NOT NULL,
    host          TEXT NOT NULL,
    offered       INTEGER NOT NULL,        -- 1 while it waits for its host to acknowledge it
    noop          INTEGER,                 -- what the host said of it
    FOREIGN KEY (deployment_id, target) REFERENCES targets (deployment_id, position) ON DELETE CASCADE,
    UNIQUE (deployment_id, target, event)
) STRICT;
CREATE INDEX commands_offered ON commands (host, sequence) WHERE offered = 1;

-- How the last deployment of a group left an instance.
CREATE TABLE health (
    group_id  TEXT NOT NULL REFERENCES deployment_groups (id) ON DELETE CASCADE,
    target_id TEXT NOT NULL,
    healthy   INTEGER NOT NULL,
    revision  TEXT,                        -- RevisionLocation of the last successful install known
    PRIMARY KEY (group_id, target_id)
) STRICT, WITHOUT ROWID;
