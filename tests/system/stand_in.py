"""A stand-in for schtasks.exe: python stand_in.py FOLDER [--option value ...] -- /create /tn NAME /xml FILE ...

It keeps tasks as files and does what is known of the real one: takes UTF-16 with its mark only, asks before it replaces
or deletes, says what it says in the language and the code page of the machine, ends with an HRESULT when it is asked
for (of which POSIX passes on the low byte), and hands tasks back with what Windows adds to them.

    --codec cp936      the code page of its messages; with --xml oem also of the XML
    --xml FORM         how XML comes out: mark (UTF-16 with its mark), bare (without), oem, nothing, junk
    --deny VERB        refuse it
    --hold VERB        say `FOLDER/held`, then wait for `FOLDER/go`
    --fail CODE        end with that status whatever is asked
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

MISSING, NO_FOLDER, DENIED, EXISTS, MALFORMED = 0x80070002, 0x80070003, 0x80070005, 0x800700B7, 0x8004131A
SAYS = {
    "cp437": "FEHLER: Das System kann die angegebene Datei nicht finden, für Köln.",
    "cp936": "错误: 系统找不到指定的文件。",
    "cp866": "ОШИБКА: Не удается найти указанный файл.",  # noqa: RUF001
    "cp932": "エラー: 指定されたファイルが見つかりません。",
}
ADDED = "<UserId>S-1-5-21-1</UserId>"


class StandIn:
    def __init__(self, folder: Path, options: dict[str, str], argv: list[str]) -> None:
        self.folder, self.options, self.argv = folder, options, argv
        self.codec = options.get("codec", "cp437")

    def main(self) -> int:
        verb = self.argv[0].lower()
        self.log()
        if self.options.get("hold") == verb:
            (self.folder / "held").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.01)
        if "fail" in self.options:
            return self.end(int(self.options["fail"], 0))
        if self.options.get("deny") == verb:
            return self.end(DENIED)
        return {"/create": self.create, "/query": self.query, "/delete": self.delete, "/run": self.run}[verb]()

    def log(self) -> None:
        with (self.folder / "log").open("a", encoding="utf-8") as log:
            log.write(f"{self.argv}\n")

    def create(self) -> int:
        data = Path(self.value("/xml")).read_bytes()
        text = data[2:].decode("utf-16-le")
        if not data.startswith(b"\xff\xfe") or 'encoding="UTF-16"' not in text[:60]:
            return self.end(MALFORMED)
        # What the schema does not allow is a fault of the caller, and its text tells which.
        sys.path.insert(0, str(Path(__file__).parent))
        from task_schema import check  # type: ignore[import-not-found]

        check(text)
        target = self.file()
        temporary = target.with_suffix(f".{os.getpid()}")
        temporary.write_text(self.as_kept(text), encoding="utf-8")
        if self.has("/f"):
            os.replace(temporary, target)
            return self.end(0)
        try:
            os.link(temporary, target)
        except FileExistsError:
            self.say("WARNUNG: Der Taskname ist bereits vorhanden. Ersetzen (J/N)? ")
            return self.end(0 if sys.stdin.readline().strip() == "J" else 1)
        finally:
            temporary.unlink()
        return self.end(0)

    def as_kept(self, text: str) -> str:
        """Return a task as Windows gives it back: with additions, and elements in an order of its own."""
        text = re.sub(r"^<\?xml[^>]*\?>", "", text).replace("\r\n", "\n").strip()
        uri = f"<URI>{self.value('/tn')}</URI>"
        text = text.replace("</RegistrationInfo>", f"{uri}</RegistrationInfo>")
        text = text.replace("<LogonType>", f"{ADDED}<LogonType>")
        idle = "<IdleSettings><StopOnIdleEnd>true</StopOnIdleEnd><RestartOnIdle>false</RestartOnIdle></IdleSettings>"
        text = text.replace("</Settings>", f"{idle}<AllowHardTerminate>true</AllowHardTerminate></Settings>")
        return re.sub(r"(<StartBoundary>.*?</StartBoundary>)(<Repetition>.*?</Repetition>)", r"\2\1", text)

    def query(self) -> int:
        if self.argv[-3:-1] != ["/xml", "ONE"] and self.argv[-2:] != ["/xml", "ONE"]:
            return self.end(1)
        if not self.has("/tn"):
            tasks = [f"<!-- {self.path_of(file)} -->\n{file.read_text('utf-8')}" for file in self.files()]
            return self.print_xml("<Tasks>\n" + "\n".join(tasks) + "\n</Tasks>")
        try:
            return self.print_xml(self.file().read_text("utf-8"))
        except FileNotFoundError:
            return self.end(MISSING)

    def print_xml(self, text: str) -> int:
        text = f'<?xml version="1.0" encoding="UTF-16"?>\n{text}\n'.replace("\n", "\r\n")
        form = self.options.get("xml", "mark")
        data = {
            "mark": b"\xff\xfe" + text.encode("utf-16-le"),
            "bare": text.encode("utf-16-le"),
            "oem": text.encode(self.codec, errors="replace"),
            "nothing": b"",
            "junk": b"<Tasks><Task>",
        }[form]
        sys.stdout.buffer.write(data)
        return 0

    def delete(self) -> int:
        if not self.has("/f"):
            self.say("Soll der Task wirklich entfernt werden (J/N)? ")
            return self.end(1)
        try:
            self.file().unlink()
        except FileNotFoundError:
            return self.end(MISSING)
        return self.end(0)

    def run(self) -> int:
        return self.end(0 if self.file().exists() else MISSING)

    # --- what it is made of ---

    def has(self, option: str) -> bool:
        return option in [item.lower() for item in self.argv]

    def value(self, option: str) -> str:
        return self.argv[[item.lower() for item in self.argv].index(option) + 1]

    def file(self) -> Path:
        name = self.value("/tn")
        assert name.startswith("\\")
        assert not set(name) & set('*?/:<>|"')
        return self.folder / (name.lower().replace("\\", "!") + ".task")

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.task"))

    def path_of(self, file: Path) -> str:
        return file.stem.replace("!", "\\")

    def say(self, text: str) -> None:
        sys.stderr.buffer.write(text.encode(self.codec, errors="replace"))

    def end(self, code: int) -> int:
        if code:
            self.say(SAYS[self.codec] + "\r\n")
        return code if self.has("/hresult") or code == 0 else 1


if __name__ == "__main__":
    cut = sys.argv.index("--")
    before = sys.argv[2:cut]
    options = {before[at].removeprefix("--"): before[at + 1] for at in range(0, len(before), 2)}
    sys.exit(StandIn(Path(sys.argv[1]), options, sys.argv[cut + 1 :]).main() & 0xFF)
