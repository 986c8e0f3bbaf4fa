"""Draw pictures to distill an edit from: `python -m tiny_zoo.draw_scenes FOLDER --count 1000 --show animal=cat`.

They are scenes of the training split, so those of the test split stay held out. A second call with a larger count adds
to the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .world import ATTRIBUTES, render, sample_scene


def main() -> None:
    """Draw those that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--show", nargs="+", default=[], metavar="ATTRIBUTE=VALUE", help="what all of them show; all else varies"
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene (default: 0)")
    arguments = parser.parse_args()
    fixed = dict(given.partition("=")[::2] for given in arguments.show)
    if unknown := [f"{name}={value}" for name, value in fixed.items() if value not in ATTRIBUTES.get(name, ())]:
        parser.error(f"{', '.join(unknown)}: the attributes are {', '.join(ATTRIBUTES)}, with the values of world.py")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.first, arguments.first + arguments.count):
        path = arguments.folder / f"{seed:05}.png"
        if not path.exists():
            render(sample_scene(seed, "train", **fixed)).save(path)


if __name__ == "__main__":
    main()
