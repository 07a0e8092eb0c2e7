"""What to do next: state and an observation in, effects out."""
