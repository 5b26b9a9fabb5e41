-- A row while somebody wants to be told; else nothing is noted.
CREATE TABLE event_listeners (
    id INTEGER PRIMARY KEY CHECK (id = 1)
) STRICT;

-- Changes of state that no message was made of yet, noted by the transaction that made them.
CREATE TABLE happenings (
    sequence      INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment_id TEXT NOT NULL,
    target_id     TEXT,                    -- absent for the deployment itself
    target_arn    TEXT,
    status        TEXT NOT NULL,
    time          INTEGER NOT NULL
) STRICT;

CREATE TRIGGER deployment_happened AFTER INSERT ON deployments
WHEN EXISTS (SELECT 1 FROM event_listeners)
BEGIN
    INSERT INTO happenings (deployment_id, status, time) VALUES (NEW.id, 'Created', NEW.created);
END;

CREATE TRIGGER deployment_changed AFTER UPDATE OF status ON deployments
WHEN NEW.status <> OLD.status AND NEW.status IN ('Ready', 'Succeeded', 'Failed', 'Stopped')
    AND EXISTS (SELECT 1 FROM event_listeners)
BEGIN
    INSERT INTO happenings (deployment_id, status, time)
        VALUES (NEW.id, NEW.status, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER target_changed AFTER UPDATE OF status ON targets
WHEN NEW.status <> OLD.status AND NEW.status IN ('InProgress', 'Ready', 'Succeeded', 'Failed')
    AND EXISTS (SELECT 1 FROM event_listeners)
BEGIN
    INSERT INTO happenings (deployment_id, target_id, target_arn, status, time)
        VALUES (NEW.deployment_id, NEW.target_id, NEW.arn, NEW.status, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

-- Messages on their way.
CREATE TABLE messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    url      TEXT NOT NULL,
    topic    TEXT,                         -- of messages in the form of SNS
    body     TEXT NOT NULL,
    made     INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due      INTEGER NOT NULL
) STRICT;
CREATE INDEX messages_by_url ON messages (url, sequence);

-- Deployments that a new revision asks for and that cannot start yet: the newest of each group.
CREATE TABLE wishes (
    application TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    revision    TEXT NOT NULL,             -- RevisionLocation
    PRIMARY KEY (application, group_name)
) STRICT, WITHOUT ROWID;
