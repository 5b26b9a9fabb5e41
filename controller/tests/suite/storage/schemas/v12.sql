-- What version 12 of the schema left of what version 1 began, with what later versions added.
PRAGMA user_version = 12;
PRAGMA foreign_keys = OFF;
BEGIN TRANSACTION;
CREATE TABLE administration (
    number   INTEGER PRIMARY KEY,
    done     INTEGER NOT NULL,
    command  TEXT NOT NULL,
    resource TEXT NOT NULL,
    by       TEXT NOT NULL
) STRICT;
CREATE TABLE applications (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    tags    TEXT NOT NULL
, github_token TEXT REFERENCES github_tokens (name) ON DELETE SET NULL) STRICT;
INSERT INTO "applications" VALUES('70fbe247-1a4d-4408-89ea-19a4240b45c8','shop',1795396580314,'[{"Key":"team","Value":"a"}]',NULL);
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
INSERT INTO "commands" VALUES(1,'d-S4PPINKI8.ApplicationStop.7bhv3ylam1egu2wgaemo','d-S4PPINKI8',0,0,'arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1',1,NULL);
CREATE TABLE credentials (
    access_key_id TEXT PRIMARY KEY,
    secret        BLOB NOT NULL,           -- sealed by the vault
    role          TEXT NOT NULL,
    arn           TEXT NOT NULL,
    created       INTEGER NOT NULL,
    revoked       INTEGER
, token   BLOB, expires INTEGER) STRICT;
INSERT INTO "credentials" VALUES('AKIAZF5UU6VLC6V7JRWP',X'275D7364726023971C3EB3432A5EC49E22EC4F424F908F4433E67B15729A82CD1E84E4BC1F6136B01349D4909EE7D77CB5FE234C1ED7B0839573EC6D0C4F58615E1A4C5B','operator','arn:aws:iam::123456789012:user/operator',1795396579068,NULL,NULL,NULL);
INSERT INTO "credentials" VALUES('AKIAQ2N3UUSZCIGCVX66',X'5085CA1D3A56E85259C923F59E0FCA021CC8CA6EBCE05387864269927889A425D08B3A104EEABDACED4B827DD1BE3BA78613AA606350C98BC6E6C0A24D35459756128B23','host','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1',1795396579134,NULL,NULL,NULL);
CREATE TABLE deployment_configs (
    name    TEXT PRIMARY KEY,
    id      TEXT NOT NULL,
    created INTEGER NOT NULL,
    minimum TEXT NOT NULL,                 -- MinimumHealthy
    zonal   TEXT,                          -- ZonalConfig
    tags    TEXT NOT NULL
) STRICT;
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
INSERT INTO "deployment_groups" VALUES('9f905fec-399f-4b28-b31e-7596e790e1f6','70fbe247-1a4d-4408-89ea-19a4240b45c8','web','{"deploymentConfigName":"CodeDeployDefault.AllAtOnce","onPremisesInstanceTagFilters":[{"Key":"env","Value":"prod","Type":"KEY_AND_VALUE"}],"serviceRoleArn":"arn:aws:iam::123456789012:role/cd"}','[]','{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}}','d-S4PPINKI8',NULL);
INSERT INTO "deployment_groups" VALUES('85dd4dea-68f5-4826-9d04-85cc4b9009a9','70fbe247-1a4d-4408-89ea-19a4240b45c8','none','{"onPremisesInstanceTagFilters":[{"Key":"env","Value":"nowhere","Type":"KEY_AND_VALUE"}],"serviceRoleArn":"arn:aws:iam::123456789012:role/cd"}','[]','{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}}','d-TEREFL8Z0',NULL);
CREATE TABLE deployments (
    id       TEXT PRIMARY KEY,
    group_id TEXT NOT NULL REFERENCES deployment_groups (id) ON DELETE CASCADE,
    created  INTEGER NOT NULL,
    status   TEXT NOT NULL,
    progress TEXT NOT NULL,                -- Progress
    rules    TEXT NOT NULL,                -- Rules
    snapshot TEXT NOT NULL                 -- DeploymentInfo as it was at the creation
, relations TEXT NOT NULL DEFAULT '{}', retire_at INTEGER) STRICT;
INSERT INTO "deployments" VALUES('d-TEREFL8Z0','85dd4dea-68f5-4826-9d04-85cc4b9009a9',1795396582797,'Failed','{"status":"Ended","started":1795396582.806,"completed":1795396582.806,"ending":{"Failed":{"code":"NO_INSTANCES","message":"The deployment failed because no instances were found for your deployment group. Check that its tag filters match the tags of registered instances."}}}','{"minimum_healthy":"OneAtATime","ignore_application_stop_failures":false}','{"deploymentConfigName":"CodeDeployDefault.OneAtATime","revision":{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}},"creator":"user","ignoreApplicationStopFailures":false,"autoRollbackConfiguration":{"enabled":false},"updateOutdatedInstancesOnly":false,"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITHOUT_TRAFFIC_CONTROL"},"instanceTerminationWaitTimeStarted":false,"fileExistsBehavior":"DISALLOW","computePlatform":"Server"}','{}',NULL);
INSERT INTO "deployments" VALUES('d-S4PPINKI8','9f905fec-399f-4b28-b31e-7596e790e1f6',1795396583557,'InProgress','{"status":"InProgress","started":1795396583.562}','{"minimum_healthy":{"FleetPercent":0},"ignore_application_stop_failures":false}','{"deploymentConfigName":"CodeDeployDefault.AllAtOnce","revision":{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}},"creator":"user","ignoreApplicationStopFailures":false,"autoRollbackConfiguration":{"enabled":false},"updateOutdatedInstancesOnly":false,"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITHOUT_TRAFFIC_CONTROL"},"instanceTerminationWaitTimeStarted":false,"fileExistsBehavior":"DISALLOW","computePlatform":"Server"}','{}',NULL);
CREATE TABLE event_listeners (
    id INTEGER PRIMARY KEY CHECK (id = 1)
) STRICT;
CREATE TABLE github_tokens (
    name    TEXT PRIMARY KEY,
    account TEXT NOT NULL,                 -- whose token it is, as GitHub knows it
    token   BLOB NOT NULL,                 -- sealed by the vault
    created INTEGER NOT NULL
) STRICT;
CREATE TABLE happenings (
    sequence      INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment_id TEXT NOT NULL,
    target_id     TEXT,                    -- absent for the deployment itself
    target_arn    TEXT,
    status        TEXT NOT NULL,
    time          INTEGER NOT NULL
) STRICT;
INSERT INTO "happenings" VALUES(1,'d-TEREFL8Z0',NULL,NULL,'Created',1795396580600);
INSERT INTO "happenings" VALUES(2,'d-S4PPINKI8','box1','arn:aws:codedeploy:us-east-1:123456789012:instance/box1_3k62ZL4ATB','Failed',1795396580700);
CREATE TABLE health (
    group_id  TEXT NOT NULL REFERENCES deployment_groups (id) ON DELETE CASCADE,
    target_id TEXT NOT NULL,
    healthy   INTEGER NOT NULL,
    revision  TEXT,                        -- RevisionLocation of the last successful install known
    PRIMARY KEY (group_id, target_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE instances (
    arn           TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    principal     TEXT NOT NULL,           -- IAM user or session ARN; also the agent's host identifier
    registered    INTEGER NOT NULL,
    deregistered  INTEGER,
    tags          TEXT NOT NULL,
    agent_version TEXT,
    last_seen     INTEGER
, accepted_signers TEXT) STRICT;
INSERT INTO "instances" VALUES('arn:aws:codedeploy:us-east-1:123456789012:instance/box1_3k62ZL4ATB','box1','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1',1795396579133,NULL,'[{"Key":"env","Value":"prod"}]',NULL,NULL,NULL);
INSERT INTO "instances" VALUES('arn:aws:codedeploy:eu-west-1:123456789012:instance/box0_Aa','box0','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box0',1795396579134,1795396579200,'[]',NULL,NULL,NULL);
INSERT INTO "instances" VALUES('arn:aws:codedeploy:eu-west-1:123456789012:instance/box0_Zz','box0','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box0',1795396579134,1795396579300,'[]',NULL,NULL,NULL);
CREATE TABLE keys (
    file        TEXT PRIMARY KEY,          -- its name in the data directory
    fingerprint BLOB                       -- absent until the file is read again
) STRICT;
INSERT INTO "keys" VALUES('master.key',NULL);
INSERT INTO "keys" VALUES('signer-key.der',NULL);
CREATE TABLE messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    url      TEXT NOT NULL,
    topic    TEXT,                         -- of messages in the form of SNS
    body     TEXT NOT NULL,
    made     INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due      INTEGER NOT NULL
) STRICT;
CREATE TABLE notices (
    application TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    bucket      TEXT NOT NULL,
    key         TEXT NOT NULL,
    sequencer   TEXT NOT NULL,
    seen        INTEGER NOT NULL,
    PRIMARY KEY (application, group_name, bucket, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "notices" VALUES('shop','web','bkt','app.zip','0055AED6DCD90281E5',1795396580800);
CREATE TABLE own_partition (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    region     TEXT NOT NULL,
    account_id TEXT NOT NULL
) STRICT;
INSERT INTO "own_partition" VALUES(1,'us-east-1','123456789012');
CREATE TABLE revisions (
    application_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    location       TEXT NOT NULL,          -- RevisionLocation; its text is its identity
    description    TEXT,
    registered     INTEGER NOT NULL,
    first_used     INTEGER,
    last_used      INTEGER,
    PRIMARY KEY (application_id, location)
) STRICT;
INSERT INTO "revisions" VALUES('70fbe247-1a4d-4408-89ea-19a4240b45c8','{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}}','Application revision registered by Deployment ID: d-TEREFL8Z0',1795396582797,1795396582797,1795396583557);
CREATE TABLE targets (
    deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,        -- the order in which targets are attempted
    target_id     TEXT NOT NULL,
    arn           TEXT NOT NULL,
    host          TEXT NOT NULL,           -- host identifier
    status        TEXT NOT NULL,
    updated       INTEGER NOT NULL,
    events        TEXT NOT NULL, label TEXT, class TEXT NOT NULL DEFAULT 'waiting', stage INTEGER NOT NULL DEFAULT 0, attempted INTEGER NOT NULL DEFAULT 0, deadline INTEGER,           -- [Event]
    PRIMARY KEY (deployment_id, position),
    UNIQUE (deployment_id, target_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "targets" VALUES('d-S4PPINKI8',0,'box1','arn:aws:codedeploy:us-east-1:123456789012:instance/box1_3k62ZL4ATB','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1','Pending',1795396583562,'[{"name":"ApplicationStop","state":"Queued","since":1795396583.562},{"name":"DownloadBundle","state":"Pending"},{"name":"BeforeInstall","state":"Pending"},{"name":"Install","state":"Pending"},{"name":"AfterInstall","state":"Pending"},{"name":"ApplicationStart","state":"Pending"},{"name":"ValidateService","state":"Pending"}]',NULL,'performing',0,0,0);
CREATE TABLE wishes (
    application TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    revision    TEXT NOT NULL,             -- RevisionLocation
    PRIMARY KEY (application, group_name)
) STRICT, WITHOUT ROWID;
INSERT INTO "wishes" VALUES('gone','gone','{"revisionType":"S3"}');
CREATE UNIQUE INDEX instances_by_name ON instances (name) WHERE deregistered IS NULL;
CREATE UNIQUE INDEX instances_by_principal ON instances (principal) WHERE deregistered IS NULL;
CREATE INDEX instances_of_name ON instances (name, registered);
CREATE INDEX deployments_of_group ON deployments (group_id, created);
CREATE INDEX deployments_by_time ON deployments (created);
CREATE INDEX commands_offered ON commands (host, sequence) WHERE offered = 1;
CREATE INDEX targets_by_class ON targets (deployment_id, class, stage, label, position);
CREATE INDEX targets_by_deadline ON targets (deployment_id, deadline) WHERE deadline IS NOT NULL;
CREATE INDEX targets_by_status ON targets (deployment_id, status);
CREATE INDEX targets_by_host ON targets (deployment_id, host);
CREATE INDEX deployments_active ON deployments (group_id) WHERE status IN ('Created', 'InProgress', 'Ready');
CREATE INDEX deployments_retiring ON deployments (retire_at) WHERE retire_at IS NOT NULL;
CREATE INDEX commands_of_service ON commands (sequence) WHERE host = '';
CREATE INDEX deployment_groups_by_config ON deployment_groups (settings ->> '$.deploymentConfigName');
CREATE INDEX deployment_groups_by_target ON deployment_groups (application_id, target_revision);
CREATE INDEX revisions_by_registration ON revisions (application_id, registered);
CREATE INDEX revisions_by_first_use ON revisions (application_id, coalesce(first_used, 0));
CREATE INDEX revisions_by_last_use ON revisions (application_id, coalesce(last_used, 0));
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
CREATE INDEX messages_by_url ON messages (url, sequence);
CREATE INDEX deployments_by_status ON deployments (status, created);
CREATE INDEX deployments_of_group_by_status ON deployments (group_id, status, created);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('happenings',2);
COMMIT;
