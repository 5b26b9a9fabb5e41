-- The key files that the database was used with, so that one that is lost or exchanged is noticed.
CREATE TABLE keys (
    file        TEXT PRIMARY KEY,          -- its name in the data directory
    fingerprint BLOB                       -- absent until the file is read again
) STRICT;
INSERT INTO keys (file) SELECT 'master.key' WHERE EXISTS (SELECT 1 FROM credentials);
INSERT INTO keys (file) SELECT 'signer-key.der' WHERE EXISTS (SELECT 1 FROM deployments);
