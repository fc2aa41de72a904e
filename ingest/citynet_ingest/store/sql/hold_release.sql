UPDATE legal_hold SET released_at = now(), released_by = %(actor)s, released_role = session_user, release_reason = %(reason)s
WHERE id = %(id)s AND released_at IS NULL
RETURNING id, from_at, to_at, reason, placed_at, placed_by, placed_role, released_at, released_by, released_role, release_reason
