limit case when current_setting('replaygate.deep', true) = 'on' then null else 10000 end
