-- Whether the agent of a host has a command that updates it; NULL if it has not said so either way.
ALTER TABLE instances ADD COLUMN can_update INTEGER;

-- An update of the agents of hosts, stage by stage.
CREATE TABLE agent_updates (
    sequence   INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL,              -- InProgress, Succeeded, Failed, Stopped
    at_a_time  INTEGER NOT NULL,
    stopped    INTEGER NOT NULL,           -- by an operator
    created    INTEGER NOT NULL,
    created_by TEXT,                       -- a user ARN
    ended      INTEGER
) STRICT;

-- One at a time.
CREATE UNIQUE INDEX agent_updates_in_progress ON agent_updates (status) WHERE status = 'InProgress';

CREATE TABLE agent_update_hosts (
    update_id TEXT NOT NULL REFERENCES agent_updates (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    name      TEXT NOT NULL,
    host      TEXT NOT NULL,               -- the identifier that its agent polls with
    command   TEXT NOT NULL UNIQUE,        -- the identifier of its command
    status    TEXT NOT NULL,               -- Waiting, Offered, Fetched, Running, Succeeded, Failed, Skipped
    since     INTEGER NOT NULL,
    deadline  INTEGER,                     -- of an offered, fetched or running command
    leased    INTEGER,                     -- until then, a fetched command is not delivered again
    before    TEXT,                        -- versions of the agent
    after     TEXT,
    message   TEXT,
    log       TEXT,
    PRIMARY KEY (update_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX agent_update_hosts_open ON agent_update_hosts (host) WHERE deadline IS NOT NULL;
