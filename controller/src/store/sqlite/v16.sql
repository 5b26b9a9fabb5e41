-- The links that log in to the web console, each once. Tokens are kept as their SHA-256 digests.
CREATE TABLE console_links (
    token   BLOB PRIMARY KEY,
    role    TEXT NOT NULL,
    arn     TEXT NOT NULL,                 -- the user ARN that its session acts as
    scopes  TEXT NOT NULL,                 -- [Scope]; empty for the whole fleet
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The sessions of the web console. Each acts with an access key, and ends with it.
CREATE TABLE console_sessions (
    token         BLOB PRIMARY KEY,
    access_key_id TEXT NOT NULL REFERENCES credentials (access_key_id) ON DELETE CASCADE,
    own_key       INTEGER NOT NULL,        -- 1 if the key was made for the session
    expires       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX console_sessions_of_key ON console_sessions (access_key_id);

-- The way in which a change was requested, if it is not the API: console.
ALTER TABLE audit ADD COLUMN source TEXT;
