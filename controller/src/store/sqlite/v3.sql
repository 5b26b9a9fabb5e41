CREATE TABLE deployment_configs (
    name    TEXT PRIMARY KEY,
    id      TEXT NOT NULL,
    created INTEGER NOT NULL,
    minimum TEXT NOT NULL,                 -- MinimumHealthy
    zonal   TEXT,                          -- ZonalConfig
    tags    TEXT NOT NULL
) STRICT;

CREATE INDEX deployment_groups_by_config ON deployment_groups (settings ->> '$.deploymentConfigName');
CREATE INDEX deployment_groups_by_target ON deployment_groups (application_id, target_revision);

-- What lists of revisions are sorted by; the time is equal where a revision was never used.
CREATE INDEX revisions_by_registration ON revisions (application_id, registered);
CREATE INDEX revisions_by_first_use ON revisions (application_id, coalesce(first_used, 0));
CREATE INDEX revisions_by_last_use ON revisions (application_id, coalesce(last_used, 0));
