"""Whether an adapter keeps the contract of `asymflow.core.adapter`, for authors of adapters.

    from asymflow.models import contract

    report = contract.check(my_adapter)     # asked by its card
    print(report)
    assert report.kept, report              # as a test

or, for a model that an installed package offers, `python -m asymflow.models.contract NAME`.

An adapter without a card (`asymflow.core.card`) is checked with requests of yours:

    contract.check(my_adapter, [Request({"label": 1}, (32, 32)), Request({"label": 2}, (32, 32))])

A property that does not apply, such as that of guidance to a model without, is not counted. To see
each property as a test of its own, parametrise over `PROPERTIES` and call `tried`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asymflow.core.adapter import Adapter
from asymflow.core.types import Request
from asymflow.models.contract import answers, cards, trajectories
from asymflow.models.contract.report import Finding as Finding
from asymflow.models.contract.report import Property as Property
from asymflow.models.contract.report import Report as Report
from asymflow.models.contract.report import tried as tried
from asymflow.models.contract.subject import TOLERANCE as TOLERANCE
from asymflow.models.contract.subject import Subject as Subject

PROPERTIES: tuple[Property, ...] = (
    *answers.PROPERTIES,
    *trajectories.PROPERTIES,
    *cards.PROPERTIES,
)
"""All properties, in the order in which they are checked."""


def check(
    adapter: Adapter,
    requests: Sequence[Request] | None = None,
    *,
    refused: Sequence[Request] = (),
    tolerance: float = TOLERANCE,
    again: Callable[[], Adapter] | None = None,
) -> Report:
    """Check every property of an adapter. Each takes a few network calls, plans those they have.

    Args:
        adapter: the model.
        requests: one or two, of one size, with inputs that differ if the model has any; by default
            those of its card.
        refused: requests that the model has to refuse.
        tolerance: how far the same answer may be apart in other batches, where pictures fill
            [-1, 1]. Networks in half precision need more, such as 0.05.
        again: loads the same model once more, perhaps in another precision: plans have to
            recognise it.

    Raises:
        InputError: it is no adapter, or there is neither a card nor a request.
    """
    subject = Subject.of(adapter, requests, refused=refused, tolerance=tolerance, again=again)
    return Report(adapter.name, tuple(tried(each, subject) for each in PROPERTIES))
