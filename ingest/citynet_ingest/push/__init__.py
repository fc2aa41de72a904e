"""The HTTP front of ingest: a request becomes a message to the broker, the answer waits for its COMMIT (ADR 13)."""
