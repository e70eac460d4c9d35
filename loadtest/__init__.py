"""Traffic whose truth is known: the generator, what must come of it, and the check that it did."""
