"""The pipelines in Hera: names, order, retries, resources. No logic; what the steps do is in `tiphys.stages`.

`render_all` gives every object that a cluster needs to run them, as YAML. `tune.pipeline` is what `tiphys run`
rehearses.
"""

from pipelines.rendering import render_all
from pipelines.settings import PipelineSettings

__all__ = ["PipelineSettings", "render_all"]
