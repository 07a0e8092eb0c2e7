"""How a model becomes stages; the only package that imports torch and diffusers."""
