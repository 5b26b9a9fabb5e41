-- Whose specifications the agent of an instance accepts, as it said last.
ALTER TABLE instances ADD COLUMN accepted_signers TEXT;
