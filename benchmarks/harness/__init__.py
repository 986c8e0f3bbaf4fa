"""What the benchmarks share: from tasks and methods to measured, finished cells and tables of them.

`tasks` says what is edited, `methods` how, with `sampling` and `injection`; `metrics` and `features` measure; `cells`
keeps what is finished, `sharing` hands the work to processes; `bootstrap` and `report` make tables.
"""
