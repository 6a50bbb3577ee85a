"""Serving backends. To add one: its file, and one line in `AnyBackend`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tiphys.backends.base import Admission, Backend
from tiphys.backends.dynamo import DynamoBackend
from tiphys.backends.nim import NimBackend
from tiphys.backends.triton import TritonBackend
from tiphys.backends.vllm import VllmBackend

AnyBackend = Annotated[VllmBackend | NimBackend | TritonBackend | DynamoBackend, Field(discriminator="kind")]

__all__ = ["Admission", "AnyBackend", "Backend", "DynamoBackend", "NimBackend", "TritonBackend", "VllmBackend"]
