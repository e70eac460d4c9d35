"""Traffic whose truth is known."""
