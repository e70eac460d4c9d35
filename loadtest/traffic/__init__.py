"""Generated traffic and its ground truth: the model, the generator, scripted attacks, and the expected counts."""
