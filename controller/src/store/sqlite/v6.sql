-- What opens private repositories to the hosts of the applications that are linked to it.
CREATE TABLE github_tokens (
    name    TEXT PRIMARY KEY,
    account TEXT NOT NULL,                 -- whose token it is, as GitHub knows it
    token   BLOB NOT NULL,                 -- sealed by the vault
    created INTEGER NOT NULL
) STRICT;

ALTER TABLE applications ADD COLUMN github_token TEXT REFERENCES github_tokens (name) ON DELETE SET NULL;
