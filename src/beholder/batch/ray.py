"""The work of `batch.local` on a Ray cluster, through Ray Data: the same rows, in their order.

The unit of work is a part of the output: consecutive pictures, their number fixed when the work
begins and kept beside the output. A worker loads the judge once, judges the pictures of a part as
`judge.runner` does, and writes the part beside its place, then renames it. The driver moves no
verdicts: it hands out what is not there yet. So whatever dies, a worker or the driver, costs the
parts that were under way; nothing is judged again that was written, nor half written.

Workers read the judge and the pictures, and write the output, under the paths that the driver was
given, made absolute: all three lie on storage that every machine sees. A worker whose judge is not
the driver's, byte for byte, refuses to work.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beholder.batch.layouts import Format, layout_of
from beholder.batch.local import CHUNK, Summary
from beholder.batch.output import (
    Parts,
    check_output,
    claim,
    identity_of,
    write_quarantine,
    writing,
)
from beholder.data.progress import ProgressBar
from beholder.errors import BeholderError, ClusterError, DeviceError, MissingExtra
from beholder.features.device import asked_device
from beholder.judge import Judge
from beholder.judge.runner import Request, Watch, judge_pictures
from beholder.judge.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

    from beholder.judge.runtime.backends import Backend

PARTS_EACH = 8  # of every worker, where there are pictures enough, so that all end together
TRIES = 3  # of a part whose worker dies: a picture that kills its process must not do so for ever
CONNECT_SECONDS = 10.0
_ON_GPU = ("cuda", "tensorrt")


def judge_on_ray(
    model: str | Path,
    requests: Sequence[Request],
    path: str | Path,
    *,
    batch_size: int = 16,
    workers: int | None = None,
    address: str | None = None,
    backend: Backend | None = None,
    gpus_per_worker: float = 0.0,
    device: str | None = None,
    images: Path | None = None,
) -> Summary:
    """Judge pictures into a folder of Parquet files, from where an earlier call has stopped.

    Args:
        model, path: a judge's folder or exported file, and an output that ends with `.parquet`.
        workers: processes that judge, a core each; None: as many as there are cores and GPUs for.
        address: of a running cluster; None: one on this machine, for the time of the call.
        backend: what runs an exported file, as for `Judge.load`.
        gpus_per_worker: that Ray gives each worker, which then judges on CUDA: a whole number, or a
            share of one GPU; 0: workers judge on the CPU.
        device: that workers judge on, as for `Judge.load`; which GPU it is, Ray says.
        images: folder that the names of a list start from, which is a part of what the work is.

    Raises:
        DeviceError: the device and `gpus_per_worker` contradict each other.
        OutputError: the place can't be written, has another ending, or belongs to other work.
        ClusterError: the cluster can't be reached, or a worker can't do its work.
        JudgeError: the judge can't be used.
        MissingExtra: Ray is not installed.
    """
    path, model = Path(path).absolute(), Path(model).absolute()
    on_device = _device_of_workers(device, gpus_per_worker, backend)
    check_output(path, "ray")
    # the driver only asks what the judge has, and may be on a machine without a GPU
    classes = Judge.load(model, "cpu", backend=backend).classes
    identity = identity_of(model, backend)
    parts = None
    try:
        with _cluster(address, workers, gpus_per_worker) as count:
            rows = _rows_of_part(len(requests), count, batch_size)
            with writing(path):
                state = claim(path, identity, requests, engine="ray", rows=rows, images=images)
                parts = Parts(path, classes, layout_of(state.format))
                before = parts.open([r.name for r in requests], state.rows or rows)
            job = _Job(
                str(model), identity, str(path), batch_size, backend, on_device,
                gpus_per_worker, state.format, trusted=before > 0,
            )  # fmt: skip
            clock = time.perf_counter()
            left = _left(requests, parts, state.rows or rows)
            watch = _follow(_run(job, left, count), count, len(requests) - before)
            seconds = time.perf_counter() - clock
    finally:  # when no worker is left that could be writing
        if parts is not None:
            parts.clear()
    with writing(path):
        failed = write_quarantine(path, parts)
    return Summary(len(requests), before, failed, seconds, *watch.shares(seconds))


def _follow(reports: Iterator[Mapping[str, Any]], workers: int, pictures: int) -> Watch:
    """Show how far the workers are; how busy one of them was, on average."""
    watch = Watch()
    with ProgressBar("judging", total=pictures) as bar:
        for report in reports:
            watch.busy += report["busy"] / workers
            watch.waiting += report["waiting"] / workers
            bar.advance(report["rows"])
    return watch


def _rows_of_part(pictures: int, workers: int, batch_size: int) -> int:
    """Whole batches; few enough that every worker gets several parts, and at most about `CHUNK`."""
    share = min(CHUNK, -(-pictures // (workers * PARTS_EACH)))
    return -(-share // batch_size) * batch_size


def _left(requests: Sequence[Request], parts: Parts, rows: int) -> Iterator[dict[str, object]]:
    """The parts that are not there yet: their numbers, and their pictures as JSON."""
    for number, start in enumerate(range(0, len(requests), rows)):
        if not parts.part(number).exists():
            part = [
                [request.name, str(request.path.absolute()), request.box]
                for request in requests[start : start + rows]
            ]
            yield {"number": number, "requests": json.dumps(part)}


@dataclass(frozen=True)
class _Job:
    """What every worker has to know."""

    model: str
    identity: str
    output: str
    batch_size: int
    backend: Backend | None = None
    device: str = "cpu"
    gpus: float = 0.0
    format: Format = 3
    trusted: bool = False


class _Worker:
    """A process of the cluster with its own judge, which is loaded for the first part."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.trusted = job.trusted

    def __call__(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        reports = [self._judge(row["number"], row["requests"]) for row in table.to_pylist()]
        return pa.Table.from_pylist(reports)

    def _judge(self, number: int, requests: str) -> dict[str, object]:
        """Judge and write a part; what the driver is told of it."""
        report: dict[str, object] = {"rows": 0, "busy": 0.0, "waiting": 0.0, "error": ""}
        part = [
            Request(name, Path(file), None if box is None else tuple(box))
            for name, file, box in json.loads(requests)
        ]
        try:
            watch = self._write(number, part)
        except BeholderError as error:
            return {**report, "error": json.dumps([error.what, error.where, error.fix])}
        return {**report, "rows": len(part), "busy": watch.busy, "waiting": watch.waiting}

    def _write(self, number: int, requests: Sequence[Request]) -> Watch:
        watch = Watch()
        if self.parts.part(number).exists():  # by one that died before it could tell
            return watch
        tried = self.parts.tried(number)
        with writing(self.parts.path), tried.open("ab") as stream:
            tries = stream.write(b".") and stream.tell()
        if tries > TRIES:
            raise ClusterError(
                f"Workers died {TRIES} times while they judged the same {len(requests)} pictures.",
                where=f"{requests[0].name} to {requests[-1].name}",
                fix="Look for one that needs more memory than there is. Calling again tries again; "
                "what was judged is kept.",
            )
        verdicts = judge_pictures(
            self.judge, requests, batch_size=self.job.batch_size, workers=1, watch=watch,
            trusted=self.trusted,
        )  # fmt: skip
        judged = list(verdicts)
        self.trusted = self.trusted or any(isinstance(entry, Verdict) for entry in judged)
        with writing(self.parts.path):
            self.parts.write_part(number, judged)
            tried.unlink(missing_ok=True)
        return watch

    @cached_property
    def judge(self) -> Judge:
        if identity_of(self.job.model, self.job.backend) != self.job.identity:
            raise ClusterError(
                "A worker found another judge than the one that the work began with.",
                where=f"{self.job.model} on {socket.gethostname()}",
                fix="Put the judge on storage that all machines share.",
            )
        job = self.job
        return Judge.load(job.model, job.device, backend=job.backend, threads=1)

    @cached_property
    def parts(self) -> Parts:
        return Parts(Path(self.job.output), self.judge.classes, layout_of(self.job.format))


def _run(job: _Job, left: Iterator[dict[str, object]], workers: int) -> Iterator[Mapping[str, Any]]:
    """Have the parts judged; what the workers tell of each, as it comes."""
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_arrow_refs

    blocks: list[Any] = [ray.put(pa.Table.from_pylist([part])) for part in left]
    if not blocks:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    reports = from_arrow_refs(blocks).map_batches(
        _Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=job.gpus or None,
        compute=ActorPoolStrategy(
            size=min(workers, len(blocks)),
            max_tasks_in_flight_per_actor=1,  # a part waits for any worker, not for its own
        ),
    )
    for report in reports.iter_rows():
        if report["error"]:
            what, where, fix = json.loads(report["error"])
            raise ClusterError(what, where=where, fix=fix)
        yield report


def _device_of_workers(device: str | None, gpus: float, backend: Backend | None) -> str:
    """What every worker loads the judge on.

    Raises:
        DeviceError: it needs GPUs and asks Ray for none, or the other way round.
    """
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise DeviceError(
            f"A worker can't have {gpus:g} GPUs.",
            where="gpus_per_worker",
            fix="Give a whole number, or a share of one GPU like 0.5.",
        )
    wanted = asked_device(device)
    kind = wanted.name.partition(":")[0] if wanted else None
    if not gpus:
        if wanted and kind in _ON_GPU:
            raise DeviceError(
                f"Workers on Ray see no GPU for {wanted.name!r} unless they ask for one.",
                where=wanted.origin,
                fix="Add --gpus-per-worker 1, or choose cpu.",
            )
        return wanted.name if wanted else "cpu"
    if kind not in (None, *_ON_GPU) or backend == "openvino":
        what = f"on {kind}" if kind not in (None, *_ON_GPU) else "with OpenVINO"
        raise DeviceError(
            f"A worker that judges {what} has no use for a GPU of Ray's.",
            where="gpus_per_worker",
            fix="Leave --gpus-per-worker out, or judge on cuda with the default backend.",
        )
    return kind or "cuda"  # the worker sees its own GPUs alone


@contextmanager
def _cluster(address: str | None, workers: int | None, gpus: float = 0.0) -> Iterator[int]:
    """A connection to a cluster, the caller's if there is one; how many workers are to be had."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtra("Judging on Ray", "ray") from error
    started_here = not ray.is_initialized()
    if started_here:
        _connect(address, workers)
    try:
        yield _count_workers(ray.cluster_resources(), workers, gpus)
    except ray.exceptions.RayActorError as error:
        raise ClusterError(
            f"The workers have died: {error}",
            fix="Look at the cluster. The same command then resumes: what was judged is kept.",
        ) from error
    finally:
        if started_here:
            ray.shutdown()


def _count_workers(resources: Mapping[str, float], workers: int | None, gpus: float) -> int:
    """How many workers a cluster has room for, at most as many as are wanted.

    Raises:
        ClusterError: it has too few GPUs; Ray would wait for them for ever.
    """
    cores = max(1, int(resources.get("CPU", 1)))
    if not gpus:
        return workers or cores
    has = int(resources.get("GPU", 0))
    # a share is of one GPU; 1e-9: three shares of a third are one
    room = has * int(1 / gpus + 1e-9) if gpus < 1 else has // int(gpus)
    if room < (workers or 1):
        raise ClusterError(
            f"The cluster has {has} GPUs, too few for {workers or 1} workers of {gpus:g} each.",
            where="gpus_per_worker",
            fix="Ask for fewer workers or smaller shares, or add machines with GPUs.",
        )
    return workers or min(cores, room)


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    if address is not None:
        _reach(address)
    try:
        ray.init(
            address or "local",
            num_cpus=None if address else workers,
            include_dashboard=None if address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreached(address or "this machine", str(error)) from error


def _reach(address: str) -> None:
    """Ray waits for minutes for a cluster that is not there."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or "/" in host or not port.isdigit() or int(port) > 65535:
        raise _unreached(address, "this is not HOST:PORT")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreached(address, str(error)) from error


def _unreached(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"There is no Ray cluster to be reached: {reason.splitlines()[0]}.",
        where=address,
        fix="Name the head of a running cluster (HOST:PORT, or auto on one of its machines), or "
        "leave --ray-address out for one on this machine.",
    )
