"""Write the tables of docs/compatibility.md from a report of test_compatibility.py and test_transformers.py.

python run.py test tests/comfy/test_compatibility.py tests/comfy/test_transformers.py --junitxml=report.xml
python -m tests.comfy.table report.xml
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
TABLES = {"test_cell": "<!-- by tests/comfy/table.py -->\n", "test_transformer_cell": "<!-- of transformers -->\n"}
"""Test of a cell -> where its table begins."""
END = "<!-- end -->"

Cells = dict[tuple[str, str, str], bool]
"""(family, form, neighbour) -> passed."""


def read_cells(report: Path, test: str) -> Cells:
    """Find the cells of a test in a JUnit report; what was skipped was not run."""
    cells: Cells = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"]
        if name.startswith(f"{test}[") and case.find("skipped") is None:
            family, form, neighbour = name.removeprefix(f"{test}[").removesuffix("]").split(" | ")
            cells[family, form, neighbour] = not list(case)
    return cells


def write_table(cells: Cells, test: str) -> str:
    """Lay the cells out, the forms in them: a row a neighbour, a column a family; many families are rows."""
    families, forms, neighbours = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))

    def passed(family: str, neighbour: str) -> str:
        results = {form: cells[family, form, neighbour] for form in forms if (family, form, neighbour) in cells}
        return ", ".join(form if result else f"{form} **no**" for form, result in results.items())

    if test == "test_cell":
        first, columns = "neighbour", families
        rows = {neighbour: [passed(family, neighbour) for family in families] for neighbour in neighbours}
    else:
        first, columns = "family", neighbours
        rows = {family: [passed(family, neighbour) for neighbour in neighbours] for family in families}
    lines = [
        f"| {first} | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {row} | " + " | ".join(values) + " |" for row, values in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def replace_table(text: str, table: str, begin: str) -> str:
    """Put a table between a page's marks."""
    before, _, rest = text.partition(begin)
    return before + begin + table + END + rest.partition(END)[2]


if __name__ == "__main__":
    found: dict[str, Cells] = {test: {} for test in TABLES}
    for argument in sys.argv[1:]:
        for test, cells in found.items():
            cells |= read_cells(Path(argument), test)
    if not any(found.values()):
        raise SystemExit("No report with a test of a cell; give one of a run of tests/comfy/test_compatibility.py.")
    page = PAGE.read_text(encoding="utf-8")
    for test, cells in found.items():
        if cells:
            page = replace_table(page, write_table(cells, test), TABLES[test])
    PAGE.write_text(page, encoding="utf-8")
