-- What an agent said, did and keeps beside its blocks: sealed entries, found by blinded stream and number.

CREATE TABLE entry (
  ws INTEGER NOT NULL, stream BLOB NOT NULL, number INTEGER NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (ws, stream, number)
) STRICT;
