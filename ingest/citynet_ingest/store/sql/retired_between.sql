-- What of a table is gone that lay, by chunk or partition, within a span.
SELECT coalesce(sum(records), 0)::bigint FROM retired WHERE tbl = %(tbl)s AND from_at >= %(from_at)s AND to_at <= %(to_at)s
