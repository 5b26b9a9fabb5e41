-- The subject of the identity token that the access key was made for; absent for other keys.
ALTER TABLE credentials ADD COLUMN subject TEXT;
CREATE INDEX credentials_of_sessions ON credentials (expires) WHERE subject IS NOT NULL;
