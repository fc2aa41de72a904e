-- Number of the newest migration; fails with "undefined table" on a database that was never migrated.
SELECT max(number) AS number FROM migration
