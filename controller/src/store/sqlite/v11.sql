-- Lists of deployments by their status read what they give, however long the history is.
CREATE INDEX deployments_by_status ON deployments (status, created);
CREATE INDEX deployments_of_group_by_status ON deployments (group_id, status, created);
