INSERT INTO legal_hold (from_at, to_at, reason, placed_by) VALUES (%(from_at)s, %(to_at)s, %(reason)s, %(actor)s)
RETURNING id, from_at, to_at, reason, placed_at, placed_by, placed_role, released_at, released_by, released_role, release_reason
