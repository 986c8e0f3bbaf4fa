"""Write the table of docs/compatibility.md from a report of test_compatibility.py.

python run.py test tests/comfy/test_compatibility.py --junitxml=report.xml
python -m tests.comfy.table report.xml
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
BEGIN, END = "<!-- by tests/comfy/table.py -->\n", "<!-- end -->"


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
    """Put a table between a page's marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


if __name__ == "__main__":
    found: dict[tuple[str, str, str], bool] = {}
    for argument in sys.argv[1:]:
        found |= read_cells(Path(argument))
    if not found:
        raise SystemExit("No report with a test of a cell; give one of a run of tests/comfy/test_compatibility.py.")
    PAGE.write_text(replace_table(PAGE.read_text(encoding="utf-8"), write_table(found)), encoding="utf-8")
