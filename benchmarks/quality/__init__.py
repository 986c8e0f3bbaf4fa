"""What decides between methods and settings: how well they edit scenes whose true edit is known.

`python -m benchmarks.quality` makes the tables, with the settings that `tune` chose. `tradeoff` turns every method's
main knob; `ablations` weighs settings of ours, `judging` what the captioner's judgement is worth, `distilled` students.
"""
