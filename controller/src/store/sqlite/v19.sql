-- A drained host gets no traffic and no commands of deployments.
ALTER TABLE instances ADD COLUMN drained INTEGER;     -- since when
ALTER TABLE instances ADD COLUMN drained_by TEXT;     -- a user ARN
ALTER TABLE instances ADD COLUMN drain_reason TEXT;

CREATE INDEX instances_drained ON instances (principal) WHERE drained IS NOT NULL;

-- The changes of traffic that drained hosts need, or hosts that are no longer drained.
CREATE TABLE drain_traffic (
    arn      TEXT NOT NULL REFERENCES instances (arn) ON DELETE CASCADE,
    group_id TEXT NOT NULL REFERENCES deployment_groups (id) ON DELETE CASCADE,
    allow    INTEGER NOT NULL,             -- 0: the host gets no traffic
    done     INTEGER NOT NULL,
    due      INTEGER NOT NULL,             -- the time of the next attempt
    problem  TEXT,                         -- of the last attempt
    PRIMARY KEY (arn, group_id)
) STRICT, WITHOUT ROWID;
