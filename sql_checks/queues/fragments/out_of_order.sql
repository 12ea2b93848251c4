-- a job that ended before it began; clocks of hosts differ by less
({{ended}} < {{begun}} - interval '60 seconds' and {{begun}} > now() - interval '1 hour')
