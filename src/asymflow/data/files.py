"""Moved to :mod:`asymflow.files`; kept while `asymflow.bench.quality` still imports it here."""

from __future__ import annotations

from asymflow.files import replacing as replacing
from asymflow.files import write_text as write_text
