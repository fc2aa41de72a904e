SELECT drop_chunks(%(tbl)s::text::regclass, older_than => %(to_at)s::timestamptz, newer_than => %(from_at)s::timestamptz)
