"""PromQL as Prometheus 3 does it: the twin's arithmetic against answers recorded from real servers.

`vectors/` holds the answers and `record.py` makes them anew: `script.py` and `exporter.py` are what it scrapes,
`server.py` runs Prometheus, `questions.py` asks. `twin.py` answers with the arithmetic under test, `rules.py` in plain
Python.
"""
