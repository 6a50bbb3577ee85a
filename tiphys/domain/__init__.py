"""Values and pure functions: the words everything else is written in.

Nothing here does I/O, reads a clock or knows of Kubernetes; all of it could be worked on paper. If it needs a
connection it belongs in `cluster`; if it needs time to pass it belongs in `twin`.
"""
