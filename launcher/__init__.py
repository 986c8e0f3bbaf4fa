"""The parts of run.py: a private environment, a ComfyUI in it, and the commands. Standard library only."""
