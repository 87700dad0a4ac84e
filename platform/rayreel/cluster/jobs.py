"""Submits a job to a cluster, follows its log and stops it, through Ray's Jobs API.

A job's id comes from its run directory, so that a run which is under way is not started twice.
"""

import asyncio
import contextlib
import logging
import os
import re
import shlex
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, TextIO

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from rayreel.data.hashing import content_hash
from rayreel.errors import ClusterError, SpecError

DETACHED = 130
"""Exit code of a client that was interrupted; the job goes on."""

_DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ADDRESS = "RAY_API_SERVER_ADDRESS"
_REQUEST_S = 60
# A connection that says nothing for so long may be dead without knowing it.
_SILENCE_S = 300
# How long a head node may be out of reach before following it is given up.
_OUT_OF_REACH_S = 900
_LONGEST_PAUSE_S = 30
_STOPS_WITHIN_S = 60
# They tell of addresses, sockets and archives.
_TALKATIVE = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)


def run_id(output: str) -> str:
    """Short id of a run: equal for equal run directories.

    Args:
        output: Absolute path or URI of the run directory.
    """
    return content_hash("run", output.rstrip("/"))[:8]


def submit(
    arguments: Sequence[str],
    *,
    output: str,
    address: str | None = None,
    working_dir: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Start ``rayreel`` on a cluster where the package is installed, unless its run is under way.

    Args:
        arguments: Of the command: ``["render", "s3://bucket/job.yaml", ...]``. Paths are those that
            the cluster sees, or relative ones from ``working_dir``.
        output: The run directory, as an absolute path or a URI.
        address: Of the cluster's dashboard; by default ``RAY_API_SERVER_ADDRESS``, then port 8265
            of this machine.
        working_dir: Local folder whose files are uploaded, in which the job starts.
        environment: Variables of the job and its workers. The dashboard shows them: secrets belong
            into the environment of the nodes.

    Returns:
        Id of the job.

    Raises:
        SpecError: If the output or the folder cannot be right.
        ClusterError: If the run is under way already, or the cluster does not take the job.
    """
    if "://" not in output and not Path(output).is_absolute():
        raise SpecError(
            f"output {output}: expected an absolute path or a URI, as the job runs elsewhere"
        )
    if working_dir is not None and not Path(working_dir).is_dir():
        raise SpecError(f"{working_dir} is not a folder that can be uploaded")
    runtime: dict[str, Any] = {"env_vars": dict(environment or {})}
    if working_dir is not None:
        runtime["working_dir"] = working_dir
    with _sentences(address):
        client = _client(address)
        job_id = _next_id(client, output)
        try:
            return client.submit_job(
                entrypoint=shlex.join(["rayreel", *arguments]),
                submission_id=job_id,
                runtime_env=runtime,
                metadata={"output": output},
            )
        except RuntimeError:
            # Someone else may have been faster; then this says so.
            _next_id(client, output)
            raise


def follow(job_id: str, *, out: TextIO, err: TextIO, address: str | None = None) -> int:
    """Show a job's log from its start until the job ends.

    A lost connection is made again, and what was shown is not shown twice.

    Args:
        job_id: From ``submit``.
        out: Where the log goes.
        err: Where it is said what happens to the connection.
        address: As for ``submit``.

    Returns:
        Exit code of the job, or ``DETACHED`` after Ctrl-C.

    Raises:
        ClusterError: If there is no such job, it did not start or was stopped, or the cluster stays
            out of reach.
    """
    with _sentences(address):
        client = _client(address)
        _details(client, job_id)
        try:
            asyncio.run(_show(client, job_id, out, err))
        except KeyboardInterrupt:
            err.write(
                f"\n{job_id} goes on; see it again with: rayreel attach {job_id}, "
                f"end it with: rayreel stop {job_id}\n"
            )
            return DETACHED
        return _exit_code(_details(client, job_id))


def stop(job_id: str, *, address: str | None = None) -> bool:
    """End a job, and wait until it has ended.

    Args:
        job_id: From ``submit``.
        address: As for ``submit``.

    Returns:
        Whether it was still running.

    Raises:
        ClusterError: If there is no such job, or it does not end.
    """
    with _sentences(address):
        client = _client(address)
        if _details(client, job_id).status.is_terminal():
            return False
        client.stop_job(job_id)
        end = time.monotonic() + _STOPS_WITHIN_S
        while not _details(client, job_id).status.is_terminal():
            if time.monotonic() > end:
                raise ClusterError(f"{job_id} has not ended within {_STOPS_WITHIN_S} s")
            time.sleep(0.5)
        return True


class _Client(JobSubmissionClient):
    """Ray's client, but no request waits for ever."""

    def _do_request(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the base's
        return super()._do_request(*arguments, **{"timeout": _REQUEST_S, **options})


class _Shown:
    """How much of a log has been written: each new connection begins at the log's start."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._written = 0
        self._seen = 0

    def begin(self) -> None:
        """The next text is that of the log's start."""
        self._seen = 0

    def add(self, text: str) -> None:
        """Write what has not been written."""
        new = text[max(0, self._written - self._seen) :]
        self._seen += len(text)
        self._written = max(self._written, self._seen)
        self._out.write(new)
        self._out.flush()


async def _show(client: _Client, job_id: str, out: TextIO, err: TextIO) -> None:
    shown = _Shown(out)
    lost_at: float | None = None
    pause = 1.0
    while True:
        shown.begin()
        try:
            async with aclosing(_texts(client, job_id)) as texts:
                async for text in texts:
                    shown.add(text)
                    lost_at, pause = None, 1.0
            if _details(client, job_id).status.is_terminal():
                break
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            if lost_at is None:
                lost_at = time.monotonic()
                err.write(f"connection to {job_id} lost ({_line(error)}); trying again\n")
            elif time.monotonic() - lost_at > _OUT_OF_REACH_S:
                raise ClusterError(
                    f"no connection to {job_id} for {_OUT_OF_REACH_S // 60} minutes; it may go on: "
                    f"rayreel attach {job_id}"
                ) from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    # The stream may end before the last lines; a job that never started has no log.
    with contextlib.suppress(RuntimeError):
        shown.begin()
        shown.add(client.get_job_logs(job_id))


async def _texts(client: _Client, job_id: str) -> AsyncGenerator[str, None]:
    stream = client.tail_job_logs(job_id)
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), _SILENCE_S)
        except StopAsyncIteration:
            return


def _client(address: str | None) -> _Client:
    # Ray prefers the variable to the argument.
    os.environ[_ADDRESS] = _resolved(address)
    for module in _TALKATIVE:
        logging.getLogger(module).setLevel(logging.WARNING)
    return _Client()


def _resolved(address: str | None) -> str:
    found = address or os.environ.get(_ADDRESS) or _DEFAULT_ADDRESS
    scheme, separator, _ = found.partition("://")
    if separator and scheme not in {"http", "https"}:
        raise SpecError(
            f"address {found}: expected that of the dashboard, such as {_DEFAULT_ADDRESS}"
        )
    return found if separator else f"http://{found}"


def _next_id(client: _Client, output: str) -> str:
    """Id of the next job of a run.

    Raises:
        ClusterError: If the last one has not ended.
    """
    prefix = f"rayreel-{run_id(output)}-"
    numbers = [0]
    for job in client.list_jobs():
        found = re.fullmatch(rf"{prefix}(\d+)", job.submission_id or "")
        if found and not job.status.is_terminal():
            raise ClusterError(f"{output} is running already: rayreel attach {found[0]}")
        if found:
            numbers.append(int(found[1]))
    return f"{prefix}{max(numbers) + 1}"


def _details(client: _Client, job_id: str) -> JobDetails:
    try:
        return client.get_job_info(job_id)
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        known = [job.submission_id for job in client.list_jobs() if job.submission_id]
        ours = sorted(name for name in known if name.startswith("rayreel-"))
        raise ClusterError(
            f"the cluster knows no job {job_id}; it has {', '.join(ours) or 'none of rayreel'}"
        ) from error


def _exit_code(job: JobDetails) -> int:
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        raise ClusterError(
            f"{job.submission_id} was stopped; what is finished is kept, and submitting it again "
            "goes on from there"
        )
    # A driver that a signal ended has a negative one, and one that did not start has none.
    if job.driver_exit_code is None or job.driver_exit_code < 0:
        raise ClusterError(f"{job.submission_id} failed: {_line(job.message)}")
    return job.driver_exit_code


@contextmanager
def _sentences(address: str | None) -> Iterator[None]:
    """Turn what Ray's client raises into errors of ours."""
    where = address or os.environ.get(_ADDRESS) or _DEFAULT_ADDRESS
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster at {where} does not let us in: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN or ~/.ray/auth_token to the cluster's token"
        ) from error
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {where}: {_line(error)}") from error
    except (RuntimeError, ValueError) as error:
        raise ClusterError(f"the cluster at {where} refuses: {_line(error)}") from error


def _line(said: object) -> str:
    return " ".join(str(said).split())
