-- What rights beyond a block's own need: the workspace's own rules, invitations, and a calendar of what ends when.

CREATE TABLE charter (
  ws INTEGER NOT NULL, serial INTEGER NOT NULL, body BLOB NOT NULL, sigs BLOB NOT NULL,
  PRIMARY KEY (ws, serial)
) STRICT;

CREATE TABLE invite (
  ws INTEGER NOT NULL, kid TEXT NOT NULL, expires INTEGER NOT NULL, verifier BLOB NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (ws, kid)
) STRICT;

CREATE TABLE calendar (
  ws INTEGER NOT NULL, day INTEGER NOT NULL, storage BLOB NOT NULL, grant_no INTEGER NOT NULL, kind TEXT NOT NULL,
  PRIMARY KEY (ws, day, storage, grant_no)
) STRICT, WITHOUT ROWID;
