-- The region and the account that ARNs and signatures are made for, since the first use.
CREATE TABLE own_partition (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    region     TEXT NOT NULL,
    account_id TEXT NOT NULL
) STRICT;
-- arn:aws:codedeploy:<region>:<account>:instance/…
INSERT INTO own_partition (id, region, account_id)
    SELECT 1, substr(rest, 1, instr(rest, ':') - 1), substr(rest, instr(rest, ':') + 1, 12)
    FROM (SELECT substr(arn, 20) AS rest FROM instances ORDER BY registered DESC, rowid DESC LIMIT 1);
