"""Where jobs and schedules are kept: the contract in `base`, one module for each store."""
