-- The last deployment of the group that began on the instance, and the time of that deployment's end.
ALTER TABLE health ADD COLUMN deployment_id TEXT;
ALTER TABLE health ADD COLUMN changed INTEGER;
-- An instance is looked up in all groups at once.
CREATE INDEX health_by_instance ON health (target_id);

-- The user ARN of the access key that created the deployment.
ALTER TABLE deployments ADD COLUMN created_by TEXT;

-- Every change by a person, a program or a host.
CREATE TABLE audit (
    sequence      INTEGER PRIMARY KEY,
    time          INTEGER NOT NULL,
    who           TEXT NOT NULL,           -- a user ARN, or the origin of a change without one
    access_key_id TEXT,
    operation     TEXT NOT NULL,
    names         TEXT NOT NULL,           -- JSON: the names of the changed objects, by their kinds
    address       TEXT,                    -- of the client, or of a proxy
    request_id    TEXT
) STRICT;
CREATE INDEX audit_by_time ON audit (time);

-- The applications and groups that an access key is limited to; absent without a limit.
ALTER TABLE credentials ADD COLUMN scopes TEXT;  -- [Scope]
