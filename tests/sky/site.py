"""Where everything of the simulated infrastructure lies, and what a process needs in its environment to use it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("DISAGCTL_TEST_SKY", "/var/tmp/disagctl-sky"))
NUMBER = int(
    os.environ.get("DISAGCTL_TEST_SKY_NUMBER", "0")
)  # a second Slurm on one machine: another number, another root
API_PORT = 46599 + NUMBER  # SkyPilot's own default is 46580: a server that somebody uses stays out of this


@dataclass(frozen=True)
class Site:
    """Folders below one root. The root must be readable by others: Slurm's user has its home there."""

    root: Path = ROOT

    @property
    def home(self) -> Path:
        """HOME of the SkyPilot client and its API server."""
        return self.root / "home"

    @property
    def slurm(self) -> Path:
        return self.root / "slurm"

    @property
    def ec2(self) -> Path:
        return self.root / "ec2"

    @property
    def shims(self) -> Path:
        """Commands that stand before the system's on every node."""
        return self.root / "shims"

    def tidy(self) -> None:
        """Remove what the Slurm and the EC2 share, once neither is there."""
        if not self.slurm.exists() and not self.ec2.exists():
            shutil.rmtree(self.root, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """The variables that make a process of this machine use this site."""
        return {
            "HOME": str(self.home),
            "PATH": os.pathsep.join(dict.fromkeys([str(Path(sys.executable).parent), *os.environ["PATH"].split(":")])),
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(API_PORT),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "DISAGCTL_HOME": str(self.home / "disagctl"),
        }

    def start_api(self) -> None:
        """SkyPilot's API server, from a process of its own: whoever starts it by a call has a child that outlives it.

        Before that the wheel of SkyPilot that travels to nodes: else the first launches build it, all at once.
        """
        build = "from sky.backends import wheel_utils; wheel_utils.build_sky_wheel()"
        self.run(sys.executable, "-c", build, timeout=600.0)
        self.run(sky_command(), "api", "start", timeout=600.0)

    def run(
        self, *command: str | Path, timeout: float = 120.0, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """A command in the site's environment; its output is kept."""
        done = subprocess.run(
            [str(part) for part in command],
            env=os.environ | self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            msg = f"{command} ended with {done.returncode}: {done.stderr[-2000:] or done.stdout[-2000:]}"
            raise RuntimeError(msg)
        return done


def sky_command() -> str:
    """SkyPilot's command of this interpreter's environment."""
    return str(Path(sys.executable).parent / "sky")
