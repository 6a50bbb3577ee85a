"""How fast the twin is: `make bench`, `python -m tests.bench`; `python -m tests.bench.peer` against another simulator.

Nothing here is asserted. Times are medians of several runs on the machine at hand, of the play alone unless a table
says otherwise. A row whose feature is not there says so instead of a number.
"""
