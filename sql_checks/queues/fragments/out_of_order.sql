-- a job that ended before it began, and not long ago; clocks of hosts differ by less
({{ended}} < {{begun}} - interval '60 seconds' and {{ended}} > now() - interval '3 hours')
