"""The Provisioner over SkyPilot: one cluster of one machine for each intent, whose only job is the node's agent."""

import asyncio
import contextlib
import logging
import math
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from disagctl.errors import DisagctlError, TeardownError, UnexpectedError, UsageError
from disagctl.provision.base import NodeHandle, NodeRequest
from disagctl.provision.sky import access, client
from disagctl.provision.sky.failures import Verdict, as_error, one_line, verdict
from disagctl.provision.sky.judge import Finding, judge, judge_job
from disagctl.provision.sky.names import Owner, cluster_name, owner
from disagctl.provision.sky.tasks import secrets_file, task_of
from disagctl.settings import secret
from disagctl.state import write_private
from task_templates.kit import write_kit

log = logging.getLogger(__name__)

T = TypeVar("T")
Listed: TypeAlias = list[NodeHandle]  # inside the class, ``list`` is a method

START_S: Final = 600.0  # its import and its API server's start, the first time
CALL_S: Final = 60.0  # SkyPilot's answer to a question
ASK_S: Final = 180.0  # … to one that it hands on to providers
JOB_S: Final = 30.0  # … of one machine, through SSH
ACCEPT_S: Final = 90.0  # … to a launch, its API server's start included
DOWN_S: Final = 300.0
ASK_EVERY_S: Final = 15.0
CALLS: Final = 16  # at once; one that hangs holds its thread
LOG_LINES: Final = 20


class SkyProvisioner:
    """Machines of one service. ``work``: a folder of ours, mode 0700. ``extra``: what nodes install; auto looks for a GPU."""

    name = "sky"
    period_s = 3.0
    lag_s = 30.0  # from our asking to a launch that SkyPilot lists

    def __init__(self, service: str, uid: str, work: Path, extra: str = "auto") -> None:
        self._service, self._uid, self._work, self._extra = service, uid, work, extra
        self._threads = asyncio.Semaphore(CALLS)
        self._ran: set[str] = set()  # clusters whose agent's job has been seen running
        self._doubtful: set[str] = set()  # clusters that do not answer
        self._asked_s = -math.inf  # when the providers were last asked for all
        self._failed: dict[str, Verdict] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._starting = asyncio.Lock()
        self._api_up = False

    async def launch(self, request: NodeRequest) -> NodeHandle:
        """Ask SkyPilot for it, unless it has been asked already."""
        name = cluster_name(request.uid, request.node, request.intent)
        known = NodeHandle(request.node, "launching", request.intent, provider_id=name)
        before = await self._call(CALL_S, client.launches, name)
        if before:
            return msgspec.structs.replace(known, request_id=before[-1].request_id)
        folder = self._work / "nodes" / name
        try:
            task = await self._call(CALL_S, self._prepare, request, folder)
            request_id = await self._call(ACCEPT_S, client.launch, task, name)
        except OSError:  # TimeoutError among them: it may have heard us all the same
            before = await self._call(CALL_S, client.launches, name)
            if not before:
                raise
            request_id = before[-1].request_id
        except Exception as err:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(err, DisagctlError):
                raise
            raise as_error(verdict(err), f"SkyPilot does not launch {request.node}") from err
        return msgspec.structs.replace(known, request_id=request_id)

    async def way_in(self, handle: NodeHandle) -> access.WayIn:
        """How to reach it by SSH."""
        return await self._call(CALL_S, access.way_in, self._name(handle))

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        """Of the agent's job; before there is one, of the launch."""
        with contextlib.suppress(Exception):
            lines = await self._call(CALL_S, client.job_log, self._name(handle), tail)
            if lines:
                return lines
        return await self._call(CALL_S, client.launch_log, handle.request_id, tail) if handle.request_id else ()

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        """See the protocol. What SkyPilot remembers; now and then, and of clusters in doubt, what their providers say."""
        try:
            return await self._list(known)
        except DisagctlError:
            raise
        except Exception as err:
            raise UnexpectedError("SkyPilot does not say what there is", why=one_line(err)) from err

    async def release(self, handle: NodeHandle) -> None:
        """Cancel its launch, end its cluster, and see that there is none."""
        name = self._name(handle)
        try:
            for launch in await self._call(CALL_S, client.launches, name):
                if launch.state == "running":
                    await self._call(CALL_S, client.cancel, launch.request_id)
            await self._call(DOWN_S, client.down, name)
            left = await self._call(ASK_S, client.clusters, [name], ask_providers=True)
        except Exception as err:
            raise TeardownError(
                f"{name} may still be there: it was not ended", why=one_line(err), next=f"sky down {name}"
            ) from err
        if left:
            what = f"{name} is still there ({left[0].offer or left[0].status})"
            raise TeardownError(what, next=f"sky down {name}")
        self._ran.discard(name)
        self._doubtful.discard(name)
        shutil.rmtree(self._work / "nodes" / name, ignore_errors=True)

    def _to_ask(self, ours: set[str], known: Sequence[NodeHandle]) -> set[str]:
        """Asking takes seconds a cluster, and heartbeats tell sooner when a machine is lost: all of them only now and then."""
        now = asyncio.get_running_loop().time()
        doubtful = self._doubtful | {self._name(handle) for handle in known if handle.doubted}
        if now - self._asked_s < ASK_EVERY_S:
            return ours & doubtful
        self._asked_s = now
        return ours & (self._ran | doubtful | (ours - {self._name(handle) for handle in known}))

    async def _list(self, known: Sequence[NodeHandle]) -> Listed:
        names = [self._name(handle) for handle in known]
        under_way = {one.cluster: one for one in await self._call(CALL_S, client.launches)}
        seen = {one.name: one for one in await self._call(CALL_S, client.clusters, None, ask_providers=False)}
        asked = self._to_ask({name for name in seen if self._ours(name)} - {*under_way, *self._ending}, known)
        found = await self._call(ASK_S, client.clusters, sorted(asked), ask_providers=True)
        seen = {name: one for name, one in seen.items() if name not in asked} | {one.name: one for one in found}
        strays = [name for name in {*under_way, *seen} if self._ours(name) and name not in names]
        handles = [*known, *(self._stray(name) for name in sorted(strays))]
        states = (self._state(handle, under_way, seen.get(self._name(handle))) for handle in handles)
        return list(await asyncio.gather(*states))

    async def _state(
        self, handle: NodeHandle, under_way: dict[str, client.Launch], cluster: client.Cluster | None
    ) -> NodeHandle:
        name = self._name(handle)
        launch = under_way.get(name)
        if launch is None and name not in self._ran:  # it is over: how did it end?
            past = await self._call(CALL_S, client.launches, name)
            launch = past[-1] if past else None
        finding: Finding = judge(launch, cluster, ran=name in self._ran)
        if finding == "ask_job":
            finding = judge_job(await self._job(name))
        request_id = launch.request_id if launch is not None else handle.request_id
        handle = msgspec.structs.replace(
            handle,
            provider_id=name,
            request_id=request_id,
            offer=cluster.offer if cluster is not None else handle.offer,
        )
        match finding:
            case "up":
                self._started(name)
                return msgspec.structs.replace(handle, state="up")
            case "gone":
                return self._over(handle)
            case "ask_launch" | "ended":
                return await self._failure(handle, cluster)
            case _:
                return msgspec.structs.replace(handle, state="launching")

    async def _job(self, name: str) -> str | None:
        """Of a machine that does not answer its provider is asked, the next time."""
        try:
            status = await self._call(JOB_S, client.job, name)
        except TimeoutError:
            status = None
        (self._doubtful.add if status is None else self._doubtful.discard)(name)
        return status

    async def _failure(self, handle: NodeHandle, cluster: client.Cluster | None) -> NodeHandle:
        """It came to nothing: keep why, and end what is left of it before saying so."""
        name = self._name(handle)
        if name not in self._failed:
            self._failed[name] = await self._why(handle, cluster)
        if cluster is not None and name not in self._ending:
            self._ending[name] = asyncio.create_task(self._end(handle))
        if name in self._ending:
            return msgspec.structs.replace(handle, state="launching")
        return self._over(handle)

    async def _why(self, handle: NodeHandle, cluster: client.Cluster | None) -> Verdict:
        if handle.request_id:
            error = await self._call(CALL_S, client.outcome, handle.request_id)
            if error is not None:
                return verdict(error)
        said = await self.logs(handle, LOG_LINES) if cluster is not None else ()
        return Verdict(None, "its agent did not start, or has ended: " + " | ".join(said[-5:]))

    async def _end(self, handle: NodeHandle) -> None:
        try:
            await self.release(handle)
        except DisagctlError as err:
            log.warning("%s", err)  # still listed, so the next turn tries again
        finally:
            self._ending.pop(self._name(handle), None)

    def _over(self, handle: NodeHandle) -> NodeHandle:
        name = self._name(handle)
        shutil.rmtree(self._work / "nodes" / name, ignore_errors=True)
        said = self._failed.get(name)
        if said is None:
            return msgspec.structs.replace(handle, state="gone")
        return msgspec.structs.replace(handle, state="failed", failure=said.failure, why=said.why, tried=said.tried)

    def _started(self, name: str) -> None:
        self._ran.add(name)
        shutil.rmtree(
            self._work / "nodes" / name, ignore_errors=True
        )  # the node has its own copy, and deletes that too

    def _prepare(self, request: NodeRequest, folder: Path) -> dict[str, object]:
        access.withhold(frozenset(offer.cloud.lower() for offer in request.offers))
        kit = write_kit(self._work / "kits")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if request.bootstrap:
            write_private(folder / "bootstrap.json", request.bootstrap)
        if request.secrets:
            values = {name: secret(name) for name in request.secrets}
            missing = [name for name, value in values.items() if value is None]
            if missing:
                raise UsageError(f"there is no {', '.join(missing)} in the environment", next="set it, and `up` again")
            write_private(folder / "secrets.env", secrets_file({k: v for k, v in values.items() if v is not None}))
        return task_of(request, kit, folder, self._extra)

    def _name(self, handle: NodeHandle) -> str:
        return handle.provider_id or cluster_name(self._uid, handle.node, handle.intent)

    def _ours(self, name: str) -> bool:
        found = owner(name)
        return found is not None and found.uid == self._uid

    def _stray(self, name: str) -> NodeHandle:
        found = owner(name) or Owner(self._uid, name, "")
        return NodeHandle(found.node, "launching", found.intent, provider_id=name)

    async def _call(self, timeout: float, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """A blocking call in a thread; TimeoutError when there is no answer in time. The thread keeps nobody from exiting."""
        if not self._api_up:
            async with self._starting:
                if not self._api_up:
                    await self._in_thread(START_S, client.start)
                    self._api_up = True
        return await self._in_thread(timeout, function, *args, **kwargs)

    async def _in_thread(self, timeout: float, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        loop = asyncio.get_running_loop()
        await self._threads.acquire()
        future: asyncio.Future[T] = loop.create_future()

        def settle(set_it: Callable[[Any], None], value: object) -> None:
            self._threads.release()
            if not future.done():  # nobody waits any more
                set_it(value)

        def work() -> None:
            outcome: tuple[Callable[[Any], None], object]
            try:
                outcome = (future.set_result, function(*args, **kwargs))
            except BaseException as err:  # noqa: BLE001  # raised again where it is waited for
                outcome = (future.set_exception, err)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, *outcome)

        threading.Thread(target=work, name=f"sky-{function.__name__}", daemon=True).start()
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise TimeoutError(f"SkyPilot gives no answer within {timeout:g} s ({function.__name__})") from None
