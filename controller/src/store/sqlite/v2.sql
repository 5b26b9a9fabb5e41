-- What the planner counts targets by, so that a decision need not read them all.
ALTER TABLE targets ADD COLUMN label TEXT;                             -- Blue or Green
ALTER TABLE targets ADD COLUMN class TEXT NOT NULL DEFAULT 'waiting';  -- Class
ALTER TABLE targets ADD COLUMN stage INTEGER NOT NULL DEFAULT 0;       -- Stage
ALTER TABLE targets ADD COLUMN attempted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE targets ADD COLUMN deadline INTEGER;                       -- when the command that is out has failed
UPDATE targets SET attempted = status NOT IN ('Pending', 'Skipped');
UPDATE targets SET class = lower(status) WHERE status IN ('Succeeded', 'Failed', 'Skipped');
-- Looked at, and written anew, by the first decision.
UPDATE targets SET class = 'performing', deadline = 0
    WHERE class = 'waiting'
      AND EXISTS (SELECT 1 FROM commands c WHERE c.deployment_id = targets.deployment_id AND c.target = targets.position);
CREATE INDEX targets_by_class ON targets (deployment_id, class, stage, label, position);
CREATE INDEX targets_by_deadline ON targets (deployment_id, deadline) WHERE deadline IS NOT NULL;

CREATE INDEX targets_by_status ON targets (deployment_id, status);
CREATE INDEX targets_by_host ON targets (deployment_id, host);

ALTER TABLE deployments ADD COLUMN relations TEXT NOT NULL DEFAULT '{}';  -- Relations
ALTER TABLE deployments ADD COLUMN retire_at INTEGER;  -- when the original instances of a blue/green one are deregistered
DROP INDEX deployments_active;
CREATE INDEX deployments_active ON deployments (group_id) WHERE status IN ('Created', 'InProgress', 'Ready');
CREATE INDEX deployments_retiring ON deployments (retire_at) WHERE retire_at IS NOT NULL;

-- The commands that the service performs itself.
CREATE INDEX commands_of_service ON commands (sequence) WHERE host = '';
