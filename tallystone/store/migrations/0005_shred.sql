-- The slots of shred keys that must be destroyed: written with the deletion, gone once the keys are (docs/adr/0024).

CREATE TABLE shred (
  ws INTEGER NOT NULL, slot BLOB NOT NULL, day INTEGER NOT NULL,
  PRIMARY KEY (ws, slot)
) STRICT, WITHOUT ROWID;
