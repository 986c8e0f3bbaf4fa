"""Optional leaf modules, imported only by who wants them; some need diffusers or transformers."""
