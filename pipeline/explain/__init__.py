"""Why an event was judged as it was: made again from stored events, with the plain rules."""
