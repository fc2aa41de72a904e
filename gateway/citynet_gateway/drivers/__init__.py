"""Field drivers: each one speaks one protocol to the field and answers it only after the sync."""
