-- STRICT: a cell has its column's type or is refused. Small rows live in the key's own tree (WITHOUT ROWID);
-- rows with larger blobs do not, since they would take a whole page each there.

CREATE TABLE schema_version (number INTEGER NOT NULL PRIMARY KEY) STRICT;

CREATE TABLE workspace (
  ws INTEGER NOT NULL, id BLOB NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (ws)
) STRICT, WITHOUT ROWID;

CREATE TABLE principal (
  ws INTEGER NOT NULL, id TEXT NOT NULL, serial INTEGER NOT NULL, record BLOB NOT NULL, sigs BLOB NOT NULL,
  PRIMARY KEY (ws, id, serial)
) STRICT;

CREATE TABLE identity (
  ws INTEGER NOT NULL, principal TEXT NOT NULL, sign BLOB NOT NULL, kem BLOB NOT NULL,
  PRIMARY KEY (ws, principal)
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
  ws INTEGER NOT NULL, kid TEXT NOT NULL, principal TEXT NOT NULL, scope TEXT NOT NULL, created INTEGER NOT NULL,
  expires INTEGER, verifier BLOB NOT NULL, root BLOB NOT NULL, label BLOB NOT NULL,
  PRIMARY KEY (ws, kid)
) STRICT, WITHOUT ROWID;

CREATE TABLE kit (
  ws INTEGER NOT NULL, principal TEXT NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (ws, principal)
) STRICT;

CREATE TABLE directory (
  ws INTEGER NOT NULL, principal TEXT NOT NULL, name BLOB NOT NULL,
  PRIMARY KEY (ws, principal)
) STRICT, WITHOUT ROWID;

CREATE TABLE shelf (
  ws INTEGER NOT NULL, shelf BLOB NOT NULL, locator BLOB NOT NULL, position INTEGER NOT NULL,
  one BLOB NOT NULL, two BLOB NOT NULL,
  PRIMARY KEY (ws, shelf, locator)
) STRICT;
CREATE INDEX shelf_position ON shelf (ws, shelf, position);

CREATE TABLE inbox (
  ws INTEGER NOT NULL, principal TEXT NOT NULL, capsule BLOB NOT NULL, enc BLOB NOT NULL, sealed BLOB NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (ws, principal, capsule)
) STRICT;
CREATE INDEX inbox_position ON inbox (ws, principal, position);

CREATE TABLE block (
  ws INTEGER NOT NULL, storage BLOB NOT NULL, policy INTEGER NOT NULL, version INTEGER NOT NULL,
  epoch INTEGER NOT NULL, flags INTEGER NOT NULL, day INTEGER, shred BLOB,
  PRIMARY KEY (ws, storage)
) STRICT, WITHOUT ROWID;

CREATE TABLE chain (
  ws INTEGER NOT NULL, storage BLOB NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (ws, storage, number)
) STRICT;

CREATE TABLE version (
  ws INTEGER NOT NULL, storage BLOB NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL, wrap BLOB NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (ws, storage, number)
) STRICT;

CREATE TABLE epoch (
  ws INTEGER NOT NULL, storage BLOB NOT NULL, number INTEGER NOT NULL, chain BLOB NOT NULL, previous_chain BLOB,
  previous BLOB,
  PRIMARY KEY (ws, storage, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE grant_wrap (
  ws INTEGER NOT NULL, storage BLOB NOT NULL, grant_no INTEGER NOT NULL, epoch INTEGER NOT NULL, wrap BLOB NOT NULL,
  PRIMARY KEY (ws, storage, grant_no)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
  ws INTEGER NOT NULL, storage BLOB NOT NULL, grant_no INTEGER NOT NULL, leaf BLOB NOT NULL, epoch INTEGER NOT NULL, roster BLOB NOT NULL,
  secret BLOB NOT NULL, day INTEGER,
  PRIMARY KEY (ws, storage, grant_no)
) STRICT, WITHOUT ROWID;

CREATE TABLE reply (
  ws INTEGER NOT NULL, key BLOB NOT NULL, attempt INTEGER NOT NULL, expires INTEGER NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (ws, key)
) STRICT;

CREATE TABLE auditor (
  ws INTEGER NOT NULL, capsule BLOB NOT NULL, day INTEGER NOT NULL, enc BLOB NOT NULL,
  PRIMARY KEY (ws, capsule)
) STRICT;

CREATE TABLE log_leaf (
  ws INTEGER NOT NULL, seq INTEGER NOT NULL, leaf BLOB NOT NULL,
  PRIMARY KEY (ws, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_detail (
  ws INTEGER NOT NULL, seq INTEGER NOT NULL, detail BLOB NOT NULL,
  PRIMARY KEY (ws, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_manifest (
  ws INTEGER NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (ws, seq)
) STRICT;

CREATE TABLE log_head (
  ws INTEGER NOT NULL, size INTEGER NOT NULL, frontier BLOB NOT NULL, checkpoint BLOB NOT NULL,
  PRIMARY KEY (ws)
) STRICT, WITHOUT ROWID;
