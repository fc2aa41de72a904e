-- Everything but what is armed now.
UPDATE rule SET armed_at = NULL
WHERE armed_at IS NOT NULL
  AND (id, version) NOT IN (SELECT * FROM unnest(%(ids)s::text[], %(versions)s::text[]) AS w (id, version))
