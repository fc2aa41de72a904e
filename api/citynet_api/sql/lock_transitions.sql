-- Before any transition is written: serialises writers to the end of their transaction (see the schema).
SELECT lock_transitions()
