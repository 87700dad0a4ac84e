"""The Serve application: from the spec of a service to its deployments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.schema import LoggingConfig

from rayreel.cluster.connect import accelerator, capacity
from rayreel.cluster.telemetry import Telemetry
from rayreel.cluster.tracing import tracing_target
from rayreel.config.jobs import cpu_share
from rayreel.config.serving import ServeSpec
from rayreel.data.storage import Storage
from rayreel.logs import log_settings
from rayreel.requests.costs import device_label
from rayreel.requests.models import rendering_model
from rayreel.requests.spec import located_service
from rayreel.serving.actors import stage_actor
from rayreel.serving.autoscaling import autoscaling_config
from rayreel.serving.dispatcher import DispatcherActor
from rayreel.serving.ingress import Ingress
from rayreel.serving.stages import PoolPlan, plan_pools

# Clients that follow a job keep a connection each.
_CONNECTIONS = 2000
# Ray Serve's own lines come with every request.
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


def app(args: ServeSpec) -> Application:
    """A service: its pools, the dispatcher, and the API in front of them.

    ``serve run serve.app:app`` calls this with the arguments of the command line or of a YAML file.

    Args:
        args: The spec; relative outputs and weights start at the current folder.

    Raises:
        SpecError: If the spec names something that is not there.
        CheckpointError: If weight files are missing or damaged.
    """
    spec = located_service(args, Path())
    rendering_model(spec.model)
    _mark(spec)
    free = capacity()
    gpus = sum(node.gpus for node in free.nodes)
    plans = plan_pools(spec, gpus)
    share = cpu_share([plan.choice for plan in plans], sum(node.cpus for node in free.nodes))
    hardware = accelerator(free)
    devices = {
        stage: device_label(device, hardware[0] if hardware else "")
        for plan in plans
        for stage, device in plan.devices.items()
    }
    telemetry = Telemetry(spec.name, tracing_target(spec.traces), log_settings())
    pools = {plan.name: (plan.stages, _pool(spec, plan, share, telemetry)) for plan in plans}
    runner = _deployment(DispatcherActor, spec, "dispatcher")
    answers = _deployment(Ingress, spec, "ingress", num_replicas=spec.ingress_replicas)
    dispatcher = runner.bind(spec, pools, devices, telemetry)
    return answers.bind(spec, dispatcher, devices, telemetry)


def _pool(spec: ServeSpec, plan: PoolPlan, share: float, telemetry: Telemetry) -> Application:
    cpus = plan.choice.cpus or share
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": plan.gpus}
    if plan.choice.node:
        # Ray's least amount: whoever has the resource at all has room.
        options["resources"] = {plan.choice.node: 0.0001}
    scaling = autoscaling_config(plan.name, plan.choice, spec.scaling, spec.name)
    number = {"autoscaling_config": scaling} if scaling else {"num_replicas": plan.choice.replicas}
    deployment = _deployment(
        stage_actor(spec.adapters),
        spec,
        plan.name,
        max_ongoing_requests=1,
        ray_actor_options=options,
        **number,
    )
    return deployment.bind(spec, plan.devices, max(1, int(cpus)), telemetry)


def _deployment(
    kind: Callable[..., Any],
    spec: ServeSpec,
    name: str,
    **options: Any,  # noqa: ANN401 - Ray's own
) -> Deployment:
    given: dict[str, Any] = {
        "max_ongoing_requests": _CONNECTIONS,
        "ray_actor_options": {"num_cpus": 0},
        "graceful_shutdown_timeout_s": spec.drain_s + 5,
        "graceful_shutdown_wait_loop_s": 0.5,
        "logging_config": _QUIET,
    }
    return cast("Deployment", serve.deployment(kind)).options(name=name, **given | options)


def _mark(spec: ServeSpec) -> None:
    """Say in the service directory what made its clips, without what is secret."""
    said = spec.model_dump_json(indent=2, exclude={"database"}).encode()
    Storage(spec.output).write_bytes("run.json", said)
