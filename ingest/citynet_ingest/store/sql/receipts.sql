SELECT lane, hashes FROM direct_receipt WHERE lane = ANY(%(lanes)s::integer[]) ORDER BY lane, id
