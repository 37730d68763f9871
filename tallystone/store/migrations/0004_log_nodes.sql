-- Hashes of the log's tree, so that a proof reads a few rows instead of all leaves. Those of a log that was begun
-- before are computed in the same transaction (`Sequencer.nodes_of`).

CREATE TABLE log_node (
  ws INTEGER NOT NULL, height INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL,
  PRIMARY KEY (ws, height, number)
) STRICT, WITHOUT ROWID;
