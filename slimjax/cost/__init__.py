"""What subnets cost: counts in closed form, and latencies by tables."""
