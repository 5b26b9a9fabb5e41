-- What version 1 of the schema left of one application, two deployments and one host.
PRAGMA user_version = 1;
PRAGMA foreign_keys = OFF;
BEGIN TRANSACTION;
CREATE TABLE applications (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    tags    TEXT NOT NULL
) STRICT;
INSERT INTO "applications" VALUES('70fbe247-1a4d-4408-89ea-19a4240b45c8','shop',1795396580314,'[{"Key":"team","Value":"a"}]');
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
) STRICT;
INSERT INTO "credentials" VALUES('AKIAZF5UU6VLC6V7JRWP',X'275D7364726023971C3EB3432A5EC49E22EC4F424F908F4433E67B15729A82CD1E84E4BC1F6136B01349D4909EE7D77CB5FE234C1ED7B0839573EC6D0C4F58615E1A4C5B','operator','arn:aws:iam::123456789012:user/operator',1795396579068,NULL);
INSERT INTO "credentials" VALUES('AKIAQ2N3UUSZCIGCVX66',X'5085CA1D3A56E85259C923F59E0FCA021CC8CA6EBCE05387864269927889A425D08B3A104EEABDACED4B827DD1BE3BA78613AA606350C98BC6E6C0A24D35459756128B23','host','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1',1795396579134,NULL);
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
) STRICT;
INSERT INTO "deployments" VALUES('d-TEREFL8Z0','85dd4dea-68f5-4826-9d04-85cc4b9009a9',1795396582797,'Failed','{"status":"Ended","started":1795396582.806,"completed":1795396582.806,"ending":{"Failed":{"code":"NO_INSTANCES","message":"The deployment failed because no instances were found for your deployment group. Check that its tag filters match the tags of registered instances."}}}','{"minimum_healthy":"OneAtATime","ignore_application_stop_failures":false}','{"deploymentConfigName":"CodeDeployDefault.OneAtATime","revision":{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}},"creator":"user","ignoreApplicationStopFailures":false,"autoRollbackConfiguration":{"enabled":false},"updateOutdatedInstancesOnly":false,"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITHOUT_TRAFFIC_CONTROL"},"instanceTerminationWaitTimeStarted":false,"fileExistsBehavior":"DISALLOW","computePlatform":"Server"}');
INSERT INTO "deployments" VALUES('d-S4PPINKI8','9f905fec-399f-4b28-b31e-7596e790e1f6',1795396583557,'InProgress','{"status":"InProgress","started":1795396583.562}','{"minimum_healthy":{"FleetPercent":0},"ignore_application_stop_failures":false}','{"deploymentConfigName":"CodeDeployDefault.AllAtOnce","revision":{"revisionType":"S3","s3Location":{"bucket":"b","key":"k.zip","bundleType":"zip"}},"creator":"user","ignoreApplicationStopFailures":false,"autoRollbackConfiguration":{"enabled":false},"updateOutdatedInstancesOnly":false,"deploymentStyle":{"deploymentType":"IN_PLACE","deploymentOption":"WITHOUT_TRAFFIC_CONTROL"},"instanceTerminationWaitTimeStarted":false,"fileExistsBehavior":"DISALLOW","computePlatform":"Server"}');
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
) STRICT;
INSERT INTO "instances" VALUES('arn:aws:codedeploy:us-east-1:123456789012:instance/box1_3k62ZL4ATB','box1','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1',1795396579133,NULL,'[{"Key":"env","Value":"prod"}]',NULL,NULL);
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
    events        TEXT NOT NULL,           -- [Event]
    PRIMARY KEY (deployment_id, position),
    UNIQUE (deployment_id, target_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "targets" VALUES('d-S4PPINKI8',0,'box1','arn:aws:codedeploy:us-east-1:123456789012:instance/box1_3k62ZL4ATB','arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1','Pending',1795396583562,'[{"name":"ApplicationStop","state":"Queued","since":1795396583.562},{"name":"DownloadBundle","state":"Pending"},{"name":"BeforeInstall","state":"Pending"},{"name":"Install","state":"Pending"},{"name":"AfterInstall","state":"Pending"},{"name":"ApplicationStart","state":"Pending"},{"name":"ValidateService","state":"Pending"}]');
CREATE UNIQUE INDEX instances_by_name ON instances (name) WHERE deregistered IS NULL;
CREATE UNIQUE INDEX instances_by_principal ON instances (principal) WHERE deregistered IS NULL;
CREATE INDEX instances_of_name ON instances (name, registered);
CREATE INDEX deployments_of_group ON deployments (group_id, created);
CREATE INDEX deployments_by_time ON deployments (created);
CREATE INDEX deployments_active ON deployments (group_id) WHERE status IN ('Created', 'InProgress');
CREATE INDEX commands_offered ON commands (host, sequence) WHERE offered = 1;
COMMIT;
