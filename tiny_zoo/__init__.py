"""Tiny Zoo: a miniature of the whole Stable Diffusion stack, and a drawn world in which the true edit is known."""
