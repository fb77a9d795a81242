"""Which layers of a quantized model go back to float: what each costs as an integer, and the cheapest set that helps.

`judge` says how much worse a model is than its float original, `choice` decides by pure functions, and each file
`layers_*` knows how one library's models have single layers quantized, run and timed. `search` brings them together.
"""
