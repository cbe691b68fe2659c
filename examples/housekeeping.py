"""The housekeeping of a machine: its state on record, old files removed, a tree of files checked.

    tickwork run examples/housekeeping.py

It writes below `var/`, in the folder it is started from. The clean-up only says what it would remove: set
`HOUSEKEEPING_DRY_RUN=0` to let it. `HOUSEKEEPING_CRON` says when ("*/1 * * * *": every minute, so that there is
something to see).
"""

import hashlib
import os
from pathlib import Path

from tickwork import App, Context
from tickwork.recipes import record_system_status, remove_old_files

VAR = Path("var")
TEMPORARY = Path(os.environ.get("HOUSEKEEPING_TEMPORARY", VAR / "tmp"))
TREE = os.environ.get("HOUSEKEEPING_TREE", str(Path(hashlib.__file__).parent))  # the standard library: 2,000 files

app = App()


@app.on_start
def make_folders() -> None:
    """Have a place for everything, and one old file to find."""
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    old = TEMPORARY / "temp_example.txt"
    old.touch()
    os.utime(old, (0, 0))


@app.every("5s", first="now")
async def record_status(ctx: Context) -> None:
    """Append processor, memory and disk to a log."""
    status = await record_system_status(VAR / "status.log")
    ctx.log.info("cpu %(cpu_percent)s %%, memory %(memory_percent)s %%, disk %(disk_percent)s %%", status)


@app.cron(os.environ.get("HOUSEKEEPING_CRON", "* * * * *"))
async def clean() -> None:
    """Remove files named temp_* that nobody has changed for a week."""
    dry_run = os.environ.get("HOUSEKEEPING_DRY_RUN", "1") != "0"
    await remove_old_files(TEMPORARY, prefix="temp_", older_than="7d", dry_run=dry_run)


@app.every("10s", run_in="process", timeout="10s")
def checksum(ctx: Context) -> str:
    """Hash every file of a tree: real work for a processor, in a process of its own."""
    digest, count, paths = hashlib.sha256(), 0, sorted(Path(TREE).rglob("*.py"))
    for number, path in enumerate(paths):
        ctx.progress(number, len(paths), str(path))
        try:
            digest.update(path.read_bytes())
        except OSError:
            continue  # removed meanwhile, or not ours to read
        count += 1
    print(f"{count} files below {TREE}: sha256 {digest.hexdigest()[:16]} (process {os.getpid()})")
    return digest.hexdigest()
