\o /dev/null
select set_config('replaygate.allow_unknown', :'allow_unknown', true);
\o
do $gate$
begin
  if current_setting('replaygate.bad') <> '' then
    raise exception 'breach:%', current_setting('replaygate.bad');
  end if;
  if current_setting('replaygate.unknown') <> '' and current_setting('replaygate.allow_unknown') <> '1' then
    raise exception 'unknown:%', current_setting('replaygate.unknown')
      using hint = 'Nothing was seen that could be judged. Give psql -v allow_unknown=1 to let this pass.';
  end if;
end
$gate$;
rollback;
select 'no breach';
