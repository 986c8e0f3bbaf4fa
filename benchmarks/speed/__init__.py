"""What an edit costs in time and memory.

`python -m benchmarks.speed` puts implementations side by side: `plan` says what is measured, `subjects` on which UNets,
`edits` by which methods, with the clocks of `meter`, kept by `workshop`; `rows` and `report` make the tables. `memory`
and `memory_transformers` count what the nodes' gradient keeps at full size, `throughput` pictures a minute on workers.
"""
