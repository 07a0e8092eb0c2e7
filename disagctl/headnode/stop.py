"""``down`` with a machine for the head: first what it rented, then the machine itself, until its provider lists nothing."""

import asyncio
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from disagctl import clock
from disagctl.errors import DisagctlError, TeardownError
from disagctl.headnode import seen, ssh
from disagctl.headnode.start import handle_of, provisioner
from disagctl.provision.base import nothing_left
from disagctl.readiness import locked
from disagctl.spec import load_spec
from disagctl.state import HeadNode, ServicePaths, ServiceRecord, write_record
from disagctl.teardown import release_all, remove_files

MACHINES_STOP_S: Final = 1800.0
MARGIN_S: Final = 600.0  # from a node's decision to end itself until its provider has ended it
Say = Callable[[str], None]


class Ended(msgspec.Struct, frozen=True):
    """What ``disagctl down -o json`` says there."""

    files: list[str] = []


def down(where: ServicePaths, record: ServiceRecord, target: Path, *, discard: bool, say: Say) -> list[Path]:
    """End everything. Results that nobody fetched are saved below ``target`` first. Raises TeardownError."""
    saved: list[Path] = []
    with locked(where):
        head = record.head
        if head is not None:
            if head.host and not record.stopping:
                saved = _end_nodes(where, record, head, target, discard=discard, say=say)
            _end_head(where, record, head, say)
            _await_dead_man(where, record, say)
            if head.host:
                ssh.hang_up(where, head)
        remove_files(where, record)
    return saved


def _end_nodes(
    where: ServicePaths, record: ServiceRecord, head: HeadNode, target: Path, *, discard: bool, say: Say
) -> list[Path]:
    """Have the head's machine end all that it rented, as ``down`` does there, and fetch what that saved.

    A machine that is gone can end nothing any more: ``record.head_gone_at`` is set. With ``discard`` that is as good for one
    that does not answer.
    """
    say("asking the head's machine to end every node")
    code, said = _run_there(where, head, record.name, discard=discard, say=say)
    if code == 0:
        files = msgspec.json.decode(said, type=Ended).files if said.strip() else []
        saved = _fetch(where, head, files, target) if files else []
        record.stopping = True
        write_record(where, record)
        return saved
    if code != ssh.SSH_FAILED:
        raise TeardownError(
            "not every node is gone", why="the head's machine says so above, and stays to try again",
            next=f"disagctl down {record.name} -y tries again",
        )  # fmt: skip
    if not discard and not _is_gone(record, head):
        raise TeardownError(
            f"the head's machine ({head.offer}, ${head.usd_per_hour:.2f}/h) does not answer, so its nodes are not ended",
            why=seen.told(where),
            next=f"disagctl down {record.name} -y tries again; with --discard it ends that machine, and the nodes end by"
            " themselves when they have heard no head for lifetime.dead_man",
        )  # fmt: skip
    record.stopping, record.head_gone_at = True, clock.wall_s()
    write_record(where, record)
    return []


def _is_gone(record: ServiceRecord, head: HeadNode) -> bool:
    """Whether the provider of the head's machine says that there is none (any more)."""
    doubted = msgspec.structs.replace(handle_of(head), doubted=True)
    try:
        return nothing_left(asyncio.run(provisioner(record).list([doubted]))[0])
    except DisagctlError:
        return False  # nobody knows


def _end_head(where: ServicePaths, record: ServiceRecord, head: HeadNode, say: Say) -> None:
    """Until its provider has twice listed nothing."""
    say("ending the head's machine")
    left = asyncio.run(release_all(provisioner(record), [handle_of(head)], say))
    if left:
        raise TeardownError(
            f"the head's machine {left[0].provider_id or left[0].node} (${head.usd_per_hour:.2f}/h) may still run and bill",
            why=left[0].why, next=f"disagctl down {record.name} -y tries again",
        )  # fmt: skip


def _await_dead_man(where: ServicePaths, record: ServiceRecord, say: Say) -> None:
    """The nodes of a head whose machine was lost are nobody's to list: they count as alive until they must have ended."""
    if record.head_gone_at is None:
        return
    dead_man_s = load_spec(where.spec, check_files=False).lifetime.dead_man_s
    left_s = record.head_gone_at + dead_man_s + MARGIN_S - clock.wall_s()
    nodes = seen.told(where)
    if left_s > 0 and nodes:
        raise TeardownError(
            f"{nodes} may still run and bill", why="the head's machine was lost, and nobody else can list them; each ends"
            f" itself {dead_man_s / 60:.0f} min after it heard its head last",
            next=f"disagctl down {record.name} -y in {left_s / 60:.0f} min, and look for the tag"
            f" disagctl-service={record.uid} in the cloud's console",
        )  # fmt: skip
    say("its nodes have had the time to end themselves" if nodes else "no node was seen up")


def _run_there(where: ServicePaths, head: HeadNode, name: str, *, discard: bool, say: Say) -> tuple[int, bytes]:
    """(exit code, standard output) of ``disagctl down`` there; its chatter is passed on."""
    words = ["disagctl.cli.main", "down", name, "-y", "-o", "json", *(["--discard"] if discard else [])]
    process = subprocess.Popen(
        ssh.command(where, head, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            out, err = process.communicate(timeout=MACHINES_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TeardownError(
                "the head's machine does not finish", next=f"disagctl down {name} -y tries again"
            ) from None
    for line in err.decode("utf-8", "replace").splitlines():
        say(line)
    return process.returncode, out


def _fetch(where: ServicePaths, head: HeadNode, files: list[str], target: Path) -> list[Path]:
    """The results that were saved there. Only plain files are taken, under their last names."""
    argv = ssh.command(where, head, "disagctl.headnode.results", *files)
    saved: list[Path] = []
    target.mkdir(exist_ok=True)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is not None:
                        path = target / Path(member.name).name
                        with path.open("wb") as file:
                            shutil.copyfileobj(content, file)
                        saved.append(path)
        except tarfile.TarError as err:
            raise _unfetched(files, saved, str(err)) from err
    if process.returncode or len(saved) < len(files):
        raise _unfetched(files, saved, "")
    return saved


def _unfetched(files: list[str], saved: list[Path], why: str) -> TeardownError:
    return TeardownError(
        f"{len(files) - len(saved)} result(s) cannot be fetched", why=why, next="try again; --discard throws them away"
    )
