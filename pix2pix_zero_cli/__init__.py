"""pix2pix-zero on the command line: pictures and folders, on this machine, on a Ray cluster, or on ComfyUI servers."""
