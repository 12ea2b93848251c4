SELECT key, count, window_start FROM public.edge_rate_limits
WHERE key LIKE 'replay:%' ORDER BY window_start DESC LIMIT 5;
