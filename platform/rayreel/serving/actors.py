"""Deployments that hold stages, and the pools that the dispatcher sees of them."""

import asyncio
import logging
import pickle
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import ray
import torch
from ray import serve
from ray.actor import ActorHandle
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from rayreel.cluster.telemetry import Observer, Telemetry
from rayreel.config.jobs import StageName
from rayreel.config.serving import ServeSpec
from rayreel.errors import Cancelled
from rayreel.pipelines.devices import Device
from rayreel.serving.pools import PoolLost, Step
from rayreel.serving.stages import make_stage
from rayreel.stages.base import RenderItem, Result, run_stage
from rayreel.stages.life import Sign, listen

Event = Step | list[Result]

# Between two looks at who waits for a batch.
_LOOK_S = 2.0

log = logging.getLogger(__name__)


class StageActor:
    """Holds the stages of a pool in one process, and works on one batch at a time."""

    def __init__(
        self,
        spec: ServeSpec,
        devices: Mapping[StageName, Device],
        threads: int,
        telemetry: Telemetry,
    ) -> None:
        """Load the stages.

        Args:
            spec: Of the service; its paths are absolute.
            devices: The pool's stages in order, and where each computes.
            threads: That it computes with.
            telemetry: Of the service.
        """
        torch.set_num_threads(threads)
        # Made here, as Ray Serve keeps what it was given, and looks into it again.
        self._stages = {name: make_stage(spec, name, device) for name, device in devices.items()}
        self._observer = Observer(telemetry)
        self._busy = asyncio.Lock()
        for stage in self._stages.values():
            stage.setup()

    async def work(
        self, items: Sequence[RenderItem], caller: "ActorHandle[Any] | None" = None
    ) -> AsyncGenerator[bytes, None]:
        """Work on a batch; it is stopped if nobody waits for it any more.

        Args:
            items: Of one batch.
            caller: The actor that waits for the results.

        Yields:
            Pickled ``Event``s: steps, and at last the results.
        """
        async with self._busy:
            if adapters := serve.get_multiplexed_model_id():
                await self.hold(adapters)
            stop, events = threading.Event(), asyncio.Queue[Event | None]()
            loop = asyncio.get_running_loop()

            def tell(event: Event) -> None:
                loop.call_soon_threadsafe(events.put_nowait, event)

            task = asyncio.create_task(asyncio.to_thread(self._work, items, tell, stop))
            task.add_done_callback(lambda _: events.put_nowait(None))
            watch = asyncio.create_task(_stop_without(caller, stop))
            try:
                while (event := await events.get()) is not None:
                    yield pickle.dumps(event)
                yield pickle.dumps(task.result())
            finally:
                # Whoever is next must find the device free.
                stop.set()
                watch.cancel()
                with suppress(Exception):
                    await task

    async def hold(self, adapters: str) -> str:
        """Tell the router that this actor has a set of adapters, which its networks keep."""
        raise NotImplementedError

    def _work(
        self, items: Sequence[RenderItem], tell: Callable[[Event], None], stop: threading.Event
    ) -> list[Result]:
        results: list[Result] = [*items]
        for name, stage in self._stages.items():
            tell(Step(stage=name))

            def sign(sign: Sign, name: StageName = name) -> None:
                if stop.is_set():
                    raise Cancelled("stopped before it was done, as asked")
                if sign.steps:
                    tell(
                        Step(
                            stage=name,
                            step=sign.step,
                            steps=sign.steps,
                            pictures=sign.pictures,
                        )
                    )

            listen(sign)
            with self._observer.batch(stage, results) as outcome:
                outcome.extend(run_stage(stage, results))
            results = [*outcome]
            if stop.is_set():
                raise Cancelled("stopped between two stages, as asked")
        return results


def stage_actor(adapters: int) -> type[StageActor]:
    """The class of actors that hold so many sets of adapters at a time."""

    class Actor(StageActor):
        """With a limit that Ray Serve knows."""

        @serve.multiplexed(max_num_models_per_replica=adapters)  # type: ignore[untyped-decorator]
        async def hold(self, adapters: str) -> str:
            return adapters

    return Actor


class ServePool:
    """A deployment of ``StageActor`` as the dispatcher sees it.

    Attributes:
        start_s: How long the pool, without actors, took to begin with a batch the last time.
    """

    def __init__(
        self,
        name: str,
        stages: tuple[StageName, ...],
        handle: "DeploymentHandle[Any]",
        replicas: Callable[[str], int],
    ) -> None:
        """Keep the arguments.

        Args:
            name: Of the pool.
            stages: What its actors do.
            handle: To them.
            replicas: How many actors a pool has now, by its name.
        """
        self.name, self.stages = name, stages
        self._handle, self._replicas = handle, replicas
        self.start_s = 0.0

    @property
    def replicas(self) -> int:
        """Actors that are ready now."""
        return self._replicas(self.name)

    async def work(
        self, items: Sequence[RenderItem], *, adapters: str = ""
    ) -> AsyncGenerator[Event, None]:
        """Have a batch worked on by one actor; as of ``Pool``."""
        handle = self._handle.options(stream=True)
        if adapters:
            handle = handle.options(multiplexed_model_id=adapters)
        response = cast(
            "DeploymentResponseGenerator[bytes]",
            handle.work.remote([*items], ray.get_runtime_context().current_actor),
        )
        ended, cold, asked_at = False, self.replicas == 0, time.monotonic()
        try:
            async for data in response:
                if cold:
                    cold, self.start_s = False, time.monotonic() - asked_at
                yield pickle.loads(data)
            ended = True
        except (
            ray.exceptions.RayActorError,
            ray.exceptions.RaySystemError,
            ray.exceptions.ObjectLostError,
            DeploymentUnavailableError,
        ) as error:
            ended = True
            raise PoolLost(type(error).__name__) from error
        finally:
            if not ended:
                await _stopped(response)


async def _stop_without(caller: "ActorHandle[Any] | None", stop: threading.Event) -> None:
    """Stop the work for an actor that has died: Ray goes on with it, whoever asked for it."""
    while caller is not None and not stop.is_set():
        try:
            await caller.__ray_ready__.remote()
        except ray.exceptions.ActorDiedError:
            log.warning("whoever asked for a batch is gone, stopping it")
            stop.set()
        except ray.exceptions.RayError as error:
            log.info("whoever asked for a batch does not answer (%s)", type(error).__name__)
        await asyncio.sleep(_LOOK_S)


async def _stopped(response: "DeploymentResponseGenerator[bytes]") -> None:
    """Cancel a request, and wait until its actor is free."""
    response.cancel()  # type: ignore[no-untyped-call]
    with suppress(
        asyncio.CancelledError, RayServeException, ray.exceptions.RayError, StopAsyncIteration
    ):
        async for _ in response:
            pass
