-- For the rest of the transaction. %(limit)s
select set_config('statement_timeout', %(limit)s, true) as given;
