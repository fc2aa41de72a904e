"""The store: what the server can do, schema migrations, and the one transaction that a commit is."""
