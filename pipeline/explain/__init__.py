"""Why an event got its verdict: the plain rules, evaluated again on stored events."""
