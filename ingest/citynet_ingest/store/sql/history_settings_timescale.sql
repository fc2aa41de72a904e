-- Of the columnstore rows come by series, which the planner may use.
SET LOCAL work_mem = '256MB';
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL statement_timeout = 0
