-- Temporary access keys.
ALTER TABLE credentials ADD COLUMN token   BLOB;     -- SHA-256 of the session token that goes with the key
ALTER TABLE credentials ADD COLUMN expires INTEGER;
