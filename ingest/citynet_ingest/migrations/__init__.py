"""The schema: numbered plain-SQL migrations, forward only. A `.plain` or `.timescale` variant is chosen by what the server can do."""
