"""The lane: batches, intents, the protocol, and the worker that runs it."""
