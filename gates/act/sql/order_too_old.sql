-- Whether a judgement that began then is out of date, by this clock. %(since)s %(good_for_min)s
select now() - %(since)s::text::timestamptz > make_interval(mins => %(good_for_min)s::int) as too_old;
