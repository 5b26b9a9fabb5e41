CREATE TRIGGER item_pieces_are_not_negative BEFORE UPDATE ON item WHEN new.pieces < 0
BEGIN
    SELECT raise(ABORT, 'fewer than no pieces');
END;
