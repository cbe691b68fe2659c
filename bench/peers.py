"""Environments of their own for the libraries that the benchmarks stand beside.

python bench/peers.py           # make or renew all of them under .venvs/
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = {
    "taskiq": "taskiq==0.13.0",
    "apscheduler4": "apscheduler==4.0.0a6",
    "apscheduler3": "apscheduler==3.11.3",
    "asyncz": "asyncz==0.17.2",
    "celery": "celery==5.7.0",
    "croniter": "croniter==7.0.0",
    "cronsim": "cronsim==2.8",
    "aiocron": "aiocron==2.1",
    "huey": "huey==3.5.4",
    "persistqueue": "persist-queue==1.1.0",
    "litequeue": "litequeue==0.14" if sys.version_info >= (3, 12) else "litequeue==0.9",  # what Python 3.11 can have
    "saq": "saq[redis]==0.26.4 hiredis==3.5.0 typing-extensions==4.16.0",
    "arq": "arq==0.28.0",
    "joblib": "joblib==1.6.0",
    "aiomultiprocess": "aiomultiprocess==0.9.1",
    "dask": "distributed==2026.8.0",
    "procrastinate": "procrastinate==3.10.0 psycopg[binary,pool]==3.3.9 psycopg-pool==3.3.3",
    "saqpostgres": "saq[postgres]==0.26.4 psycopg[binary,pool]==3.3.9 psycopg-pool==3.3.3",
    "pgqueuer": "pgqueuer==1.6.0 asyncpg==0.32.0",
    "taskiqredis": "taskiq-redis==1.2.4 taskiq==0.13.0 hiredis==3.5.0",
}
"""What is installed for each peer: one or more requirements, parted by blanks."""


@dataclass(frozen=True)
class Environment:
    python: Path


@dataclass(frozen=True)
class Missing:
    reason: str


def environment(peer: str) -> Environment | Missing:
    """Return the peer's Python, made now if need be, or the reason why there is none."""
    folder = ROOT / ".venvs" / f"peers-{peer}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "made-for.txt"
    wanted = f"{REQUIREMENTS[peer]}\n{sys.version}\n"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return Environment(python)
    print(f"Making {folder.relative_to(ROOT)} with {REQUIREMENTS[peer]}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    for command in commands(folder, python, REQUIREMENTS[peer]):
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            return Missing(f"{REQUIREMENTS[peer]} could not be installed: {last_line(done.stderr)}")
    stamp.write_text(wanted)
    return Environment(python)


def commands(folder: Path, python: Path, requirement: str) -> list[list[str]]:
    if uv := shutil.which("uv"):
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *requirement.split()],
        ]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirement.split()],
    ]


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()


if __name__ == "__main__":
    for name in REQUIREMENTS:
        found = environment(name)
        print(f"{name}: {found.python if isinstance(found, Environment) else found.reason}")
