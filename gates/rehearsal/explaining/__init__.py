"""Why a statement cannot run, in plain words, which earlier one caused it, and what to do."""
