DELETE FROM edge_rate_limits WHERE key LIKE 'replay:%';
