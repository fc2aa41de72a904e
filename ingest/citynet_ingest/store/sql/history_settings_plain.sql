-- Hashing takes the rows as the scan gives them; sorting them first costs more than all the rest. 256 MB are several times a block.
SET LOCAL work_mem = '256MB';
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL statement_timeout = 0;
SET LOCAL enable_sort = off
