"""Edits with real weights, measured as papers measure them, by whoever has the weights: `python -m benchmarks.real`.

`table1.py` has the columns of the paper's Table 1 on a folder of pictures, `pie.py` those of PIE-Bench; both are a
`benchmark.Benchmark`. `methods.py` has the published settings and ours, `editing.py` and `measuring.py` do the work and
keep it, `judges.py` are the networks that read pictures (`networks.py`, `lpips.py`), `pixels.py` compares them
without, `report.py` writes the file to send back.
"""
