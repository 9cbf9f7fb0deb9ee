"""The running mesh: what starts, admits, publishes, certifies and answers."""
