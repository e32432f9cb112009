"""The workflow: a plan of runs, the rules that make them, and what is drawn from them."""
