INSERT INTO retired (actor, tbl, part, from_at, to_at, rows, records, bytes)
VALUES (%(actor)s, %(tbl)s, %(part)s, %(from_at)s, %(to_at)s, %(rows)s, %(records)s, %(bytes)s)
