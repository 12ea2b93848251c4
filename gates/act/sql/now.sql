-- The time of this transaction, and so of its changes.
select now()::text as at;
