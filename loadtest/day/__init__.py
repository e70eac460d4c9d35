"""A whole day, sampled: some lanes of it and a minute of each hour, replayed in log time, and what all of it would take."""
