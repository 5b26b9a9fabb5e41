-- What the administrative commands have changed and the service has not logged yet.
CREATE TABLE administration (
    number   INTEGER PRIMARY KEY,
    done     INTEGER NOT NULL,
    command  TEXT NOT NULL,
    resource TEXT NOT NULL,
    by       TEXT NOT NULL
) STRICT;
