"""Where a function runs: on the loop, in a thread, in a process."""
