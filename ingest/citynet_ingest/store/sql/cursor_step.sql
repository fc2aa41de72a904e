-- Moves only a cursor that stands where the plan saw it; the caller counts the rows.
UPDATE stream_cursor AS c SET
    seq = w.seq,
    stored = c.stored + w.stored,
    dead_lettered = c.dead_lettered + w.dead,
    lost = c.lost + w.lost,
    noted = c.noted + w.noted,
    claimed = greatest(c.claimed, w.claimed),
    updated_at = now()
FROM unnest(
    %(gateways)s::text[], %(streams)s::text[], %(epochs)s::bigint[], %(before)s::bigint[], %(seqs)s::bigint[],
    %(stored)s::bigint[], %(dead)s::bigint[], %(lost)s::bigint[], %(noted)s::bigint[], %(claimed)s::bigint[]
) AS w (gateway, stream, epoch, before, seq, stored, dead, lost, noted, claimed)
WHERE (c.gateway, c.stream, c.epoch) = (w.gateway, w.stream, w.epoch) AND c.seq = w.before
