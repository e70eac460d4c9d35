"""The runner of load tests: schedule, senders, samples, thresholds, faults."""
