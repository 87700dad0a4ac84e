"""How long workers are busy with a corpus of few long and many short clips: shares, or a queue.

Nothing is encoded: a clip takes as long as it is drawn, so that only the order counts.
"""

import heapq
from collections.abc import Sequence
from random import Random
from statistics import mean

from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import ShardingCase
from rayreel.runs.planning.order import longest_first


def compare_sharding(case: ShardingCase) -> Line:
    """Time until the last worker is done, over several corpora.

    Ours is batches by estimated cost, the longest first, of which a free worker takes the next. The
    other way is a fixed share for each worker: of W, the first takes clips 0, W, 2 W and so on.
    """
    speed_ups: list[float] = []
    shares: list[tuple[float, float]] = []
    for seed in range(case.corpora):
        random = Random(seed)
        costs = [min(random.paretovariate(case.alpha), case.longest) for _ in range(case.clips)]
        estimates = [cost * random.lognormvariate(0, case.error) for cost in costs]
        batches = longest_first(estimates, most=case.batch, workers=case.workers)
        ours = queued(
            [sum(costs[index] for index in batch) for batch in batches],
            workers=case.workers,
            waiting=case.waiting,
        )
        theirs = interleaved(costs, workers=case.workers)
        bound = lower_bound(costs, workers=case.workers)
        speed_ups.append(theirs / ours)
        shares.append((bound / ours, bound / theirs))
    return {
        "baseline": "a fixed share for each worker",
        "speed_up": round(mean(speed_ups), 3),
        "worst_speed_up": round(min(speed_ups), 3),
        "share_of_bound": round(mean(ours for ours, _ in shares), 3),
        "worst_share_of_bound": round(min(ours for ours, _ in shares), 3),
        "baseline_share_of_bound": round(mean(theirs for _, theirs in shares), 3),
    }


def queued(costs: Sequence[float], *, workers: int, waiting: int) -> float:
    """Time until all batches are done that workers take one after the other.

    Args:
        costs: Of batches, in the order in which they go out.
        workers: How many.
        waiting: Batches that a worker has beside the one that it is at; they are not given away.
    """
    ends = [0.0] * workers
    # When a place is free, and whose: first all workers get one batch each, then the next.
    places = [
        (0.0, turn * workers + worker) for turn in range(waiting + 1) for worker in range(workers)
    ]
    for cost in costs:
        now, place = heapq.heappop(places)
        worker = place % workers
        ends[worker] = max(now, ends[worker]) + cost
        heapq.heappush(places, (ends[worker], place))
    return max(ends)


def interleaved(costs: Sequence[float], *, workers: int) -> float:
    """Time until the worker with the largest share is done."""
    return max(sum(costs[worker::workers]) for worker in range(workers))


def lower_bound(costs: Sequence[float], *, workers: int) -> float:
    """Time that no order can beat."""
    return max(sum(costs) / workers, *costs)
