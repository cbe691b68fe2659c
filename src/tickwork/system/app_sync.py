"""The schedules of an app and a scheduler of the operating system: planned, shown, and brought in step.

    plan = await tab.plan(app, "billing.jobs:app")
    print(plan)
    await tab.apply(plan)

The same for `Crontab` and `Schtasks`, which say what is theirs alone: what an entry looks like, which are there, and
how one is changed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..clock import outside
from ..errors import InvalidEntry, InvalidOption, SchedulerConflict
from .app_entries import (
    absolute_target,
    app_id_of,
    check_app_id,
    here,
    interpreter,
    state_folder,
    wanted_entries,
)
from .crontab_text import Owner
from .sync import Found, Plan, Request, Want, make_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..app import App
    from .app_entries import Wanted

__all__ = ["AppSync", "Seen", "check_unchanged", "make_log_folder"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a scheduler has.

    Attributes:
        found: The entries of the app.
        owners: What is written beside them.
        others: How many lines, or tasks, are not the app's.
    """

    found: tuple[Found, ...]
    owners: tuple[Owner, ...]
    others: int


class AppSync(ABC):
    """A scheduler of the operating system, which the schedules of apps are brought into."""

    _noun: str

    async def plan(
        self,
        app: App,
        target: str,
        *,
        app_id: str | None = None,
        dir: str | os.PathLike[str] | None = None,
        log: str | os.PathLike[str] | bool = True,
        python: str | os.PathLike[str] | None = None,
        remove: bool = True,
        force: bool = False,
        skip_unsupported: bool = False,
    ) -> Plan:
        """Return what has to be done so that each schedule of an app is an entry here; nothing is changed.

        Args:
            app: The app. It need not be started.
            target: What names it on the command line: "billing.jobs:app". That of a file becomes absolute.
            app_id: By which its entries are known: 1 to 64 of a-z, 0-9, ".", "_" and "-"; None: its module.
            dir: The folder in which it is imported and runs; None: the current one.
            log: The folder of the logs, one file for each entry; True: `log/APP` in the state folder of the user,
                `~/.local/state/tickwork`; False: none.
            python: The interpreter; None: this one, in its virtual environment.
            remove: Whether entries are removed that the app no longer has.
            force: Whether entries are changed and removed that somebody has edited, or that are another folder's.
            skip_unsupported: Whether schedules that cannot be said here are left out; else `apply` refuses the plan.

        Raises:
            InvalidEntry: Two schedules have one id; the app id is none; a folder or an interpreter is not there.
            InvalidOption: An option has a value that it cannot have.
            SystemSchedulerError: What is there cannot be read.
        """
        for option, given in (("remove", remove), ("force", force), ("skip_unsupported", skip_unsupported)):
            if not isinstance(given, bool):
                raise InvalidOption(option, "True or False", given)
        with outside():
            folder = await asyncio.to_thread(here, dir)
            default = await asyncio.to_thread(state_folder, self._log_user) if log is True else ""
        where = absolute_target(target, folder)
        owner = Owner(app_id_of(where) if app_id is None else check_app_id(app_id), folder, where)
        assert owner.app is not None
        logs = os.path.join(default, owner.app) if log is True else _given_logs(log, folder)
        program = interpreter(python, folder)
        wanted = wanted_entries(app, where, dir=folder, log=logs, python=program)
        with outside():
            for place in {folder, os.path.dirname(where) if os.path.isabs(where) else folder}:
                await asyncio.to_thread(self._check_place, program, place)
            wants = await asyncio.to_thread(self._render, wanted, owner)
        request = Request(owner, tuple(wants), "sync" if remove else "install", force, skip_unsupported, logs)
        return self._planned(request, await self._look(owner.app))

    async def plan_removal(
        self, app_id: str, *, target: str = "", dir: str | os.PathLike[str] | None = None, force: bool = False
    ) -> Plan:
        """Return what has to be done so that no entry of an app is left; nothing is changed, and no app is needed.

        Args:
            app_id: The id of the app.
            target: Only when the entries are those of this target, unless forced; "": whatever they run.
            dir: Only when they are those of this folder, unless forced; None: whatever folder.
            force: Whether also what somebody has edited is removed.

        Raises:
            Exception: As for `plan`.
        """
        with outside():
            folder = "" if dir is None else await asyncio.to_thread(here, dir)
        request = Request(Owner(check_app_id(app_id), folder, target), (), "uninstall", force)
        return self._planned(request, await self._look(app_id))

    async def apply(self, plan: Plan) -> None:
        """Carry a plan out; where there is nothing to do, nothing is written.

        Args:
            plan: One that was made for this scheduler.

        Raises:
            ForeignEntry: The entries are those of another app or folder, and the plan was not forced.
            PlanRefused: Schedules cannot be said here, and they are not to be skipped.
            SchedulerConflict: The entries of the app have changed since the plan was made.
            InvalidOption: The plan is none, or was made for another scheduler.
            SystemSchedulerError: What is there cannot be read or written.
        """
        if plan.where != self.where:
            raise InvalidOption("plan", f"one that was made for {self.where}", plan.where)
        plan.check()
        if plan.changes:
            await self._carry_out(plan)
        if any(not want.refused for want in plan.request.wants):
            await self._warn()

    # --- what each says for itself ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def where(self) -> str:
        """Which scheduler, for messages."""

    @abstractmethod
    def _render(self, wanted: Sequence[Wanted], owner: Owner) -> list[Want]:
        """Return entries as they are to stand here, or why they cannot; it may block."""

    def _check_place(self, python: str, dir: str) -> None:  # noqa: B027  # whoever has nothing to check
        """Refuse an interpreter and a folder that entries must not use; it blocks."""

    @abstractmethod
    async def _look(self, app_id: str) -> Seen:
        """Return what is there."""

    @abstractmethod
    async def _carry_out(self, plan: Plan) -> None:
        """Make the changes of a plan."""

    async def _warn(self) -> None:  # noqa: B027  # whoever knows of nothing
        """Say in the log why entries will not run."""

    def _planned(self, request: Request, seen: Seen) -> Plan:
        return make_plan(request, seen.found, where=self.where, owners=seen.owners, others=seen.others, noun=self._noun)

    @property
    def _log_user(self) -> str | None:
        """The user whose folder logs are in, where that is another one than this process's."""
        return None


def _given_logs(log: str | os.PathLike[str] | bool, dir: str) -> str | None:
    """Return the folder of logs that was given, or None for none."""
    if isinstance(log, bool):
        return None
    if not os.fspath(log):
        raise InvalidOption("log", "a folder, True or False", log)
    return os.path.normpath(os.path.join(dir, log))


def check_unchanged(plan: Plan, now: Plan) -> Plan:
    """Return the plan that would be made now, where it is the same, or where nothing is left to do.

    Raises:
        SchedulerConflict: The entries of the app are no longer those that it was made for.
    """
    is_done = not now.changes and not now.foreign
    if not is_done and (plan.steps, plan.foreign) != (now.steps, now.foreign):
        what = f"the entries of the app {plan.request.owner.app!r} in {plan.where} have changed since the plan was made"
        raise SchedulerConflict(what, "make it again; nothing was changed")
    return now


def make_log_folder(request: Request, user: str | None = None) -> None:
    """Make the folder of the logs, for its owner only, unless it is there. It blocks.

    Args:
        request: What is asked for.
        user: Whose it is to be, where that is not the user of this process (as root).

    Raises:
        InvalidEntry: It cannot be made, or not be written.
    """
    if request.logs is None or not any(not want.refused for want in request.wants):
        return
    if user is not None:
        # As that user: whatever stands in a folder of his, root must not follow.
        words = ["sh", "-c", 'mkdir -p -m 700 -- "$1" && test -w "$1"', "sh", request.logs]
        made = subprocess.run(
            words, user=user, group=_group_of(user), extra_groups=[], capture_output=True, check=False
        )
        if made.returncode != 0:
            said = made.stderr.decode(errors="replace").strip() or "it cannot be written"
            raise InvalidEntry("log", request.logs, f"as {user!r}: {said}")
        return
    try:
        os.makedirs(request.logs, mode=0o700, exist_ok=True)
    except OSError as error:
        raise InvalidEntry("log", request.logs, f"the folder cannot be made: {error.strerror or error}") from None
    if not os.access(request.logs, os.W_OK | os.X_OK):
        raise InvalidEntry("log", request.logs, "this user cannot write there")


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
