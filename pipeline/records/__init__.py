"""Records in a lane: encoded batches, and the columns made from them. Every other package may import this one."""
