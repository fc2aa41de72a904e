-- Edges that a topology document no longer has in the networks that it names.
WITH gone AS (
    DELETE FROM edge g
    WHERE g.network IN (SELECT jsonb_array_elements_text(%(networks)s::jsonb))
      AND (g.network, g.name) NOT IN (
          SELECT e.network, e.edge FROM jsonb_to_recordset(%(edges)s::jsonb) AS e (network text, edge text)
      )
    RETURNING 1
)
SELECT count(*) AS edges FROM gone
