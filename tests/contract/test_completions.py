"""The shipped completion scripts: the same as the command prints, and doing their work in the real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from promgun.cli.completion import SHELLS
from promgun.cli.main import main
from promgun.instances.entries import Run
from promgun.instances.registry import register

ROOT = Path(__file__).parents[2]
FILES = {"bash": "promgun.bash", "zsh": "_promgun", "fish": "promgun.fish"}
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
DEADLINE = 60.0

#: What is typed before TAB, and the line after it: each has one answer only.
CASES = {
    "command": ("promgun comp", "promgun completion "),
    "subcommand": ("promgun metrics d", "promgun metrics dump "),
    "option": ("promgun run --worker-ty", "promgun run --worker-type "),
    "own option": ("promgun run --no-metrics-s", "promgun run --no-metrics-server "),
    "option after a value": ("promgun run -w 2 --worker-ty", "promgun run -w 2 --worker-type "),
    "worker type": ("promgun run -k gth", "promgun run -k gthread "),
    "choice": ("promgun run --log-level deb", "promgun run --log-level debug "),
    "choice after =": ("promgun run --log-level=deb", "promgun run --log-level=debug "),
    "choice of a subcommand": ("promgun metrics dump --format op", "promgun metrics dump --format openmetrics "),
    "file": ("promgun run --config conf", "promgun run --config config.py "),
    "file after =": ("promgun run --certfile=ser", "promgun run --certfile=server.pem "),
    "directory": ("promgun metrics dump --dir sto", "promgun metrics dump --dir store/"),
    "application": ("promgun run shop:ap", "promgun run shop:app "),
    "application of a package": ("promgun run site.w", "promgun run site.web "),
    "instance": ("promgun metrics dump --instance sho", "promgun metrics dump --instance shop-7 "),
    "shell": ("promgun completion z", "promgun completion zsh "),
}
EXPECTED = {name: completed for name, (_, completed) in CASES.items()}
INTERPRETERS = pytest.mark.unmeasured("each TAB starts an interpreter, and measuring doubles what it costs")


@pytest.mark.parametrize("shell", SHELLS)
def test_shipped_file_is_what_the_command_prints(shell: str) -> None:
    printed = CliRunner().invoke(main, ["completion", shell])
    assert printed.exit_code == 0
    assert (ROOT / "completions" / FILES[shell]).read_text() == printed.output


def test_printing_starts_no_other_program(tmp_path: Path) -> None:
    """Click's own way asks a bash for its version; a machine without one must do."""
    program = [sys.executable, "-m", "promgun", "completion", "bash"]
    done = subprocess.run(program, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert "complete -o nosort" in done.stdout


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in with files to complete, and one running instance."""
    place = tmp_path / "work"
    (place / "store").mkdir(parents=True)
    (place / "site").mkdir()
    (place / "site" / "__init__.py").touch()
    (place / "site" / "web.py").touch()
    (place / "config.py").touch()
    (place / "server.pem").touch()
    (place / "shop.py").write_text("def app(environ, start_response): ...\n")
    monkeypatch.setenv("PROMGUN_RUNTIME_DIR", str(tmp_path / "runtime"))
    register(
        Run(
            name="shop-7",
            pid=os.getpid(),
            started=time.time(),
            application="shop:app",
            worker_type="sync",
            addresses=(),
            metrics_addresses=(),
            store=tmp_path,
        )
    )
    return place


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """What the shells see: our program first in the path, a home of their own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: os.environ[name] for name in ("PROMGUN_RUNTIME_DIR",)}
    return (
        kept
        | {"PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "LANG": "C.UTF-8", "OUT": str(tmp_path / "line")}
        | more
    )


@contextmanager
def terminal(command: list[str], env: dict[str, str], cwd: Path) -> Iterator[int]:
    """Run an interactive shell on a terminal of its own; gives the other end of it."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(command[0], command, env)  # noqa: S606 - a shell is what is tested
    try:
        yield fd
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


def wait_for(path: Path, fd: int) -> str:
    """The text of ``path`` once it exists; what the shell prints meanwhile is read, for it must not block."""
    seen, deadline = b"", time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.02)[0]:
            seen += os.read(fd, 65536)
        if path.exists():
            return path.read_text()
    raise AssertionError(f"{path.name} did not appear; the terminal showed {seen!r}")


def completed_lines(command: list[str], env: dict[str, str], cwd: Path) -> dict[str, str]:
    """Type each line in one shell, press TAB, then the keys that our start-up files bind to writing the line down.

    Ctrl-U empties the line for the next one, in both shells.
    """
    line = Path(env["OUT"])
    found = {}
    with terminal(command, env, cwd) as fd:
        wait_for(line.with_name("ready"), fd)
        for name, (typed, _) in CASES.items():
            os.write(fd, f"{typed}\t\x18w".encode())
            found[name] = wait_for(line, fd)
            line.unlink()
            os.write(fd, b"\x15")
    return found


@INTERPRETERS
@pytest.mark.needs("bash")
def test_bash(tmp_path: Path, workspace: Path) -> None:
    folder = tmp_path / ".local/share/bash-completion/completions"
    folder.mkdir(parents=True)
    if BASH_COMPLETION.exists():
        # As the wheel installs it: bash-completion finds it by the command's name when it is first needed.
        shutil.copy(ROOT / "completions/promgun.bash", folder / "promgun")
        load = f"source {BASH_COMPLETION}"
    else:
        load = f"source {ROOT / 'completions/promgun.bash'}"
    start = tmp_path / "bashrc"
    start.write_text(
        f"{load}\n"
        'write_line() { printf %s "$READLINE_LINE" >"$OUT.new"; mv "$OUT.new" "$OUT"; }\n'
        "bind -x '\"\\C-xw\": write_line'\n"
        "PROMPT_COMMAND='touch \"${OUT%/*}/ready\"'\n"
    )
    command = ["bash", "--noprofile", "--rcfile", str(start), "-i"]
    assert completed_lines(command, environment(tmp_path), workspace) == EXPECTED


@INTERPRETERS
@pytest.mark.needs("zsh")
def test_zsh(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / ".zshrc").write_text(
        f"fpath=({ROOT / 'completions'} $fpath)\n"
        "autoload -Uz compinit; compinit -u -D\n"
        "write_line() { print -rn -- $BUFFER >$OUT.new; mv $OUT.new $OUT }\n"
        "zle -N write_line; bindkey '^Xw' write_line\n"
        "zle-line-init() { touch ${OUT:h}/ready }; zle -N zle-line-init\n"
    )
    env = environment(tmp_path, ZDOTDIR=str(tmp_path))
    # A path that ends in "/" stands without a space in zsh too, but it may keep the slash as a removable suffix.
    assert completed_lines(["zsh", "-o", "NO_GLOBAL_RCS", "-i"], env, workspace) == EXPECTED


@INTERPRETERS
@pytest.mark.needs("fish")
def test_fish(tmp_path: Path, workspace: Path) -> None:
    folder = tmp_path / ".config/fish/completions"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "completions/promgun.fish", folder)
    asked = "\n".join(f"complete -C {typed!r}; echo =" for typed, _ in CASES.values())
    done = subprocess.run(
        ["fish", "-c", asked],
        env=environment(tmp_path),
        cwd=workspace,
        capture_output=True,
        text=True,
        check=True,
        timeout=2 * DEADLINE,
    )
    offered = [
        [line.partition("\t")[0] for line in answer.splitlines() if line] for answer in done.stdout.split("=\n")[:-1]
    ]
    assert dict(zip(CASES, offered, strict=True)) == {
        name: [line.rsplit(maxsplit=1)[-1].rstrip()] for name, line in EXPECTED.items()
    }
