"""Records on their way through a lane: encoded batches, and the columns made of them. Every other package may import it."""
