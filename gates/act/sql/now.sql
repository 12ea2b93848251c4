-- The time of this transaction, which is that of what it changes.
select now()::text as at;
