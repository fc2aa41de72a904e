SELECT tbl, sum(records)::bigint FROM retired GROUP BY tbl
