"""What CPUs cannot tell: the nodes on a CUDA card, at full size, in every precision and with little memory.

`plan` says what is measured, `networks` on which networks, `tasks` and `embedded` how, in a `worker`, a process of its
own; `python -m benchmarks.gpu` hands out the work and writes the tables.
"""
