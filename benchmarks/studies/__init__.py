"""What explains: a setting varied, directions and their sentences, reconstructions, ideas of later work."""
