SELECT id, from_at, to_at, reason, placed_at, placed_by, placed_role, released_at, released_by, released_role, release_reason
FROM legal_hold ORDER BY id
