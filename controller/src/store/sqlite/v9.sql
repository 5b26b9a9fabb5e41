-- The newest notification of each watched object, where notifications say their order.
CREATE TABLE notices (
    application TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    bucket      TEXT NOT NULL,
    key         TEXT NOT NULL,
    sequencer   TEXT NOT NULL,
    seen        INTEGER NOT NULL,
    PRIMARY KEY (application, group_name, bucket, key)
) STRICT, WITHOUT ROWID;
