SELECT * FROM replay_budgets_status;
