"""Write docs/compatibility.md, and its table in the README, from a report of test_compatibility.py.

python run.py test tests/comfy/test_compatibility.py --junitxml=report.xml
python -m tests.comfy.table report.xml
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
OUTPUT, README = ROOT / "docs" / "compatibility.md", ROOT / "README.md"
BEGIN, END = "<!-- by tests/comfy/table.py -->\n", "<!-- end -->"
HEADER = """\
# What works with what

Written by `python -m tests.comfy.table` from a run of `tests/comfy/test_compatibility.py`; nothing here is claimed,
every mark is a test. Each edits a latent with a tiny checkpoint in the family's own key layout, with random weights, on
a CPU, and passes if

- with guidance 0, and the negative from the text, the result equals the stock sampler's without our node, bit for bit
  (the all-in-one sampler: to 1e-5, since its noise is not rounded on the way through a LATENT socket), and
- with guidance above 0 the move brings the attention maps closer to those of the original.

A cell names the forms that passed, with **no** behind one that failed; an empty one was not run. The three forms are
one implementation, so the model patch meets every neighbour in every family and the other two in one. The all-in-one
sampler takes no latent; it has the noise mask of the latent that was inverted, which `tests/comfy/test_neighbours.py`
compares with the other forms. There, too, is what is refused, and with which sentence.
"""


def read_cells(report: Path) -> dict[tuple[str, str, str], bool]:
    """Find (family, form, neighbour) -> passed in a JUnit report."""
    cells: dict[tuple[str, str, str], bool] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"]
        if name.startswith("test_cell["):
            family, form, neighbour = name.removeprefix("test_cell[").removesuffix("]").split(" | ")
            cells[family, form, neighbour] = not list(case)
    return cells


def write_table(cells: dict[tuple[str, str, str], bool]) -> str:
    """Lay the cells out: a row a neighbour, a column a family, the forms in the cells."""
    families, forms, rows = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))

    def passed(family: str, row: str) -> str:
        results = {form: cells[family, form, row] for form in forms if (family, form, row) in cells}
        return ", ".join(form if result else f"{form} **no**" for form, result in results.items())

    lines = [
        "| neighbour | " + " | ".join(families) + " |",
        "|---" * (len(families) + 1) + "|",
        *(f"| {row} | " + " | ".join(passed(family, row) for family in families) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def replace_table(text: str, table: str) -> str:
    """Put a table between the README's marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


if __name__ == "__main__":
    found: dict[tuple[str, str, str], bool] = {}
    for argument in sys.argv[1:]:
        found |= read_cells(Path(argument))
    if not found:
        raise SystemExit("No report with a test of a cell; give one of a run of tests/comfy/test_compatibility.py.")
    OUTPUT.write_text(f"{HEADER}\n{write_table(found)}", encoding="utf-8")
    README.write_text(replace_table(README.read_text(encoding="utf-8"), write_table(found)), encoding="utf-8")
