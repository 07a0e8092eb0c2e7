"""The hosts behind the simulated EC2: booted, ended, and the image they boot from."""

import shutil
import subprocess
from pathlib import Path

from tests.sky.catalogs import write_catalogs
from tests.sky.daemons import Daemons
from tests.sky.shims import UV, system_python, uv_settings

BRIDGE = "disagctl0"
GATEWAY = "10.201.0.1"
SCRIPT = Path(__file__).with_name("ec2_host.sh")
NAMESPACES = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private"]
# What SkyPilot's own images have, so that it installs nothing at launch.
RUNTIME = """
set -e
export PATH=$HOME/.local/bin:$PATH VIRTUAL_ENV=$HOME/skypilot-runtime
uv venv -q --seed $VIRTUAL_ENV --python 3.10
uv pip install -q 'setuptools<70' 'click<8.3.0' 'pydantic-core==2.41.1' 'ray[default]==2.9.3' 'skypilot[aws,remote]==0.14.1'
uv venv -q --seed --relocatable --system-site-packages --python /usr/bin/python3 $HOME/sky-user-env
bash $HOME/kit/install.sh core
DISAGCTL_CACHE=/opt/disagctl bash $HOME/kit/install.sh sky:aws
cd /opt/disagctl/libraries-*/lib/python3.*/site-packages  # folders for byte code, made later, would make the wheel look old
/opt/disagctl/libraries-*/bin/python -m compileall -q sky sky_templates
/opt/disagctl/libraries-*/bin/python -c 'from sky.backends import wheel_utils; wheel_utils.build_sky_wheel()'
"""


class Hosts:
    """Below ``base``: image/ is the home that every host begins with, hosts/ID one folder a host."""

    def __init__(self, base: Path, endpoint: str) -> None:
        self.base, self.endpoint = base, endpoint
        self.image = base / "image"
        self.daemons = Daemons(base / "daemons")

    def prepare(self) -> None:
        """The bridge, the file system for the hosts' roots (an overlay cannot lie on an overlay), and the image."""
        if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True, check=False).returncode != 0:
            for words in (
                ["link", "add", BRIDGE, "type", "bridge"],
                ["addr", "add", f"{GATEWAY}/16", "dev", BRIDGE],
                ["link", "set", BRIDGE, "up"],
            ):
                subprocess.run(["ip", *words], check=True)
        folder = self.base / "hosts"
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_mount():
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8g", "tmpfs", str(folder)], check=True)
        if not (self.image / ".complete").exists():
            self._build()

    def boot(self, name: str, address: str, keys: list[str]) -> None:
        """Start a host; returns when it has been started, not when its sshd answers."""
        folder = self.base / "hosts" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "keys").write_text("\n".join(keys) + "\n")
        cable = f"v{name[-9:]}"
        for words in (
            ["netns", "add", name],
            ["link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name],
            ["link", "set", cable, "master", BRIDGE, "up"],
            ["-n", name, "addr", "add", f"{address}/16", "dev", "eth0"],
            ["-n", name, "link", "set", "lo", "up"],
            ["-n", name, "link", "set", "eth0", "up"],
        ):
            subprocess.run(["ip", *words], check=True)
        words = [
            "bash",
            str(SCRIPT),
            "boot",
            str(folder),
            str(self.image),
            address,
            str(folder / "keys"),
            self.endpoint,
        ]
        path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.daemons.start(name, ["ip", "netns", "exec", name, *NAMESPACES, *words], path)

    def end(self, name: str) -> None:
        """End a host and remove all of it; harmless when it is gone."""
        self.daemons.kill(name)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        shutil.rmtree(self.base / "hosts" / name, ignore_errors=True)

    def remove(self) -> None:
        """Everything: hosts, image, bridge."""
        for record in sorted((self.base / "daemons").glob("i-*.json")):
            self.end(record.stem)
        subprocess.run(["umount", str(self.base / "hosts")], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def _build(self) -> None:
        """/home/ubuntu with uv, SkyPilot's runtime and the libraries of an agent: a host has no way out to fetch them."""
        import uv

        from task_templates.kit import write_kit

        tools = self.image / ".local/bin"
        tools.mkdir(parents=True, exist_ok=True)
        shutil.copy2(uv.find_uv_bin(), tools / "uv-real")
        settings = "".join(f"export {name}='{value}'\n" for name, value in uv_settings().items())
        settings += "[ -e /home/ubuntu/.complete ] && export UV_OFFLINE=1"
        (tools / "uv").write_text(
            UV.format(python=system_python(), real="/home/ubuntu/.local/bin/uv-real", settings=settings)
        )
        (tools / "uv").chmod(0o755)
        shutil.copytree(write_kit(self.base / "kits"), self.image / "kit", dirs_exist_ok=True)
        write_catalogs(self.image)  # a head's SkyPilot has prices, too
        for path in (self.image, *self.image.rglob("*")):
            shutil.chown(path, 1500, 1500)
        folder = self.base / "hosts" / "build"
        command = [*NAMESPACES, "bash", str(SCRIPT), "image", str(folder), str(self.image), RUNTIME]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
        if done.returncode != 0:
            msg = f"the image does not build: {done.stderr[-2000:]}"
            raise RuntimeError(msg)
        (self.image / ".complete").touch()
