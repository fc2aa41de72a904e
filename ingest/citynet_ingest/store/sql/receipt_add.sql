INSERT INTO direct_receipt (lane, hashes) SELECT * FROM unnest(%(lanes)s::integer[], %(hashes)s::bytea[])
