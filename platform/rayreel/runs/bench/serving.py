"""Services against each other: stages in one pool or in several, with batches or without.

The services of a comparison run side by side, and are asked by turns.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median
from typing import Any

from rayreel.config.request import RenderRequest
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.pipeline import written_requests
from rayreel.runs.bench.serving_process import JobTimes, Service, running_service
from rayreel.runs.bench.spec import (
    AnyServiceCase,
    ServiceBatchesCase,
    ServiceCase,
    ServicePlacementsCase,
)
from rayreel.runs.bench.timing import Race, turns


def compare_services(case: AnyServiceCase, seconds: float) -> list[Line]:
    """What a case of services asks for."""
    match case:
        case ServicePlacementsCase():
            lines = compare_placements(case, seconds)
        case ServiceBatchesCase():
            lines = [compare_batch_sizes(case, seconds)]
    return lines


def compare_placements(case: ServicePlacementsCase, seconds: float) -> list[Line]:
    """One actor of all stages, and one of each, all of them with one thread.

    Args:
        case: Clips of a burst; of those that come one by one, each when the one before is done.
        seconds: For both.

    Returns:
        What each adds to its stages; then both against each other, once by latency of a clip that
        comes alone, once by seconds of a clip of a burst.
    """
    ways = {
        "fused": service_spec(placement="fused", workers={"cpus": 1, "batch_size": 1}),
        "split": service_spec(placement="split", workers={"cpus": 0.25, "batch_size": 1}),
    }
    singles: dict[str, list[JobTimes]] = {way: [] for way in ways}
    bursts: dict[str, list[float]] = {way: [] for way in ways}
    with ExitStack() as stack:
        services = _started(stack, ways, case)
        for turn in turns(seconds):
            requests = _requests(case, turn + 1)
            for way, service in services.items():
                singles[way] += [service.one(request) for request in requests[: case.singles]]
                bursts[way].append(service.burst(requests[case.singles :]))
    fused, split = (median(one.whole for one in singles[way]) for way in ("fused", "split"))
    latency, pace = Race(split, fused), Race(min(bursts["split"]), min(bursts["fused"]))
    return [
        *(overhead(way, times) for way, times in singles.items()),
        {"measure": "latency", "placement": "split", **latency.line("fused")},
        {"measure": "burst", "placement": "split", **pace.line("fused")},
    ]


def compare_batch_sizes(case: ServiceBatchesCase, seconds: float) -> Line:
    """Seconds of a clip of a burst of like ones, with batches against one by one."""
    ways = {
        size: service_spec(placement="fused", workers={"cpus": 1, "batch_size": size})
        for size in (case.batch, 1)
    }
    bursts: dict[int, list[float]] = {way: [] for way in ways}
    with ExitStack() as stack:
        services = _started(stack, ways, case)
        for turn in turns(seconds):
            for size, service in services.items():
                bursts[size].append(service.burst(_requests(case, turn + 1)))
    both = Race(min(bursts[case.batch]), min(bursts[1]))
    return {"measure": "burst", **both.line("one by one")}


def overhead(placement: str, times: list[JobTimes]) -> Line:
    """What a client waits for besides the stages of its job.

    Args:
        placement: Of the service.
        times: Of jobs that came alone; medians are told.
    """
    whole, stages = median(one.whole for one in times), median(one.stages for one in times)
    added = median(one.whole - one.stages for one in times)
    return {
        "measure": "overhead",
        "placement": placement,
        **Race(whole, stages).line("its stages"),
        "overhead_ms": _ms(added),
        "answer_ms": _ms(median(one.answer for one in times)),
        "first_event_ms": _ms(median(one.first_event for one in times)),
        "running_ms": _ms(median(one.running for one in times)),
    }


def service_spec(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - as a person writes them
    """The spec of a service of the tiny model that accepts all that a case asks for."""
    own = {"model": "tiny", "keep_latents": False, "queue": {"max_jobs_per_key": 1000}}
    return {**own, **fields}


def _started(
    stack: ExitStack, ways: Mapping[Any, dict[str, Any]], case: ServiceCase
) -> dict[Any, Service]:
    """Services that have their networks and texts, and have made such clips before."""
    services = {way: stack.enter_context(running_service(spec)) for way, spec in ways.items()}
    for service in services.values():
        service.burst(_requests(case, 0))
    return services


def _requests(case: ServiceCase, turn: int) -> list[RenderRequest]:
    """Prompts are the same at every turn, seeds are not."""
    return written_requests(case, prompts=case.clips, seed=turn * case.clips)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
