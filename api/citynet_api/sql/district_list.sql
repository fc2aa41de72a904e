-- One page of districts by name.
SELECT d.name, d.label, d.outline FROM district d WHERE d.name > %(after)s::text ORDER BY d.name LIMIT %(limit)s::integer
