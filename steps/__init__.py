"""The steps of the pipelines: what Argo's containers (and the rehearsal) call, one stage of the library a file.

Each unpacks its parameters, makes one call and returns. A step is an ordinary function, so that a test can call it.
These files do without `from __future__ import annotations`: Hera's runner reads the annotations as types.
"""
