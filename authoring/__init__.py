"""What writes the shipped files: `python -m authoring.workflows | thumbnails | sentences | locales | pictures`."""
