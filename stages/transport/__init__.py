"""How tensors travel from one stage's worker to the next."""
