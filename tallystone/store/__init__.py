"""Where rows are kept: the protocol, the tables, and SQLite. A store never sees a key that opens them."""
