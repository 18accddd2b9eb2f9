"""One virtual environment per peer, under benchmarks/.envs/, from the exact pins in peers/<peer>.txt.

Peers in C are compiled there, too, from peers/<name>.c.

`python benchmarks/envs.py` makes them all; a run makes those it needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE / "peers"
ENVS = HERE / ".envs"
INSTALL_DEADLINE_S = 900


def python_of(name: str) -> Path:
    """Return the interpreter of a peer's environment, made anew when its pins or this Python's version have changed.

    Raises:
        RuntimeError: pip could not install the pins.
    """
    pins = PINS / f"{name}.txt"
    env = ENVS / name
    stamp = env / "pins.sha256"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        print(f"making the environment of {name}", file=sys.stderr)
        shutil.rmtree(env, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(env)], check=True, timeout=INSTALL_DEADLINE_S)
        pip = [str(env / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(pins)]
        done = subprocess.run(pip, check=False, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        if done.returncode:
            raise RuntimeError(f"pip could not install {os.path.relpath(pins)}: {done.stderr.strip()[-500:]}")
        stamp.write_text(wanted, encoding="ascii")
    return env / "bin" / "python"


def program_of(name: str) -> Path:
    """Return a program compiled from peers/<name>.c, made anew when its source has changed.

    Raises:
        RuntimeError: it could not be compiled.
    """
    source = PINS / f"{name}.c"
    program = ENVS / "programs" / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        made = program.with_suffix(".part")
        words = ["cc", "-O2", "-pthread", "-o", str(made), str(source)]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        if done.returncode:
            raise RuntimeError(f"cc could not compile {os.path.relpath(source)}: {done.stderr.strip()[-500:]}")
        made.rename(program)
    return program


def names() -> list[str]:
    """Return the names of all environments."""
    return sorted(pins.stem for pins in PINS.glob("*.txt"))


if __name__ == "__main__":
    for peer in sys.argv[1:] or names():
        print(python_of(peer))
