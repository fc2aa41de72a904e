"""The schema: numbered plain-SQL migrations, forward only; a `.plain` or `.timescale` variant fits the server."""
