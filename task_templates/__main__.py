"""``python -m task_templates DIR --bootstrap FILE``: an agent's task with all that it mounts, to read or to launch by hand."""

import argparse
import shutil
from pathlib import Path

import yaml

from task_templates.kit import AGENT, template, write_kit

parser = argparse.ArgumentParser(
    prog="python -m task_templates",
    description="Writes DIR/agent.yaml and what it mounts; then: sky launch --infra … --gpus … DIR/agent.yaml",
)
parser.add_argument("directory", type=Path, metavar="DIR")
parser.add_argument(
    "--bootstrap", type=Path, required=True, help="the head's file for this node; holds a one-time token"
)
parser.add_argument("--extra", default="auto", choices=["auto", "worker-cuda", "worker-cpu", "core"])
args = parser.parse_args()
folder = args.directory.resolve()
folder.mkdir(mode=0o700, parents=True, exist_ok=True)
task = template(AGENT)
task["envs"]["DISAGCTL_EXTRA"] = args.extra
bootstrap = folder / "bootstrap.json"
bootstrap.touch(mode=0o600)
shutil.copyfile(args.bootstrap, bootstrap)
bootstrap.chmod(0o600)  # also where it was there before
task["file_mounts"] = {"~/disagctl/kit": str(write_kit(folder)), "~/disagctl/bootstrap.json": str(bootstrap)}
(folder / AGENT).write_text(yaml.safe_dump(task, sort_keys=False))
print(f"{folder / AGENT}: sky launch --infra … --gpus … {folder / AGENT}")  # noqa: T201
