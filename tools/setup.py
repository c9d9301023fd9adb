"""Make `.venv` and install fullspan into it; does nothing when that is done already.

    python3 tools/setup.py lm            what `make demo` needs
    python3 tools/setup.py lm serve peers dev  what `make test` needs

Only the standard library is used here, since nothing else is there yet.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sysconfig.get_platform().startswith("win") else "bin/python")


def main(extras: list[str]) -> None:
    # An older Python gets as far as this line, whatever the project requires.
    if sys.version_info < (3, 11):  # noqa: UP036
        found = sys.version.split()[0]
        stop(f"fullspan needs Python 3.11 or newer, this is {found}: `make PYTHON=python3.12 ...`")
    wanted = fingerprint()
    stamp = VENV / "fullspan-extras.txt"
    installed = stamp.read_text().split() if stamp.exists() else []
    if installed[:1] == [wanted] and set(extras) <= set(installed[1:]):
        return
    if not usable():
        print("making .venv", flush=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True
        )
        if made.returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            stop(
                "Python could not make a virtual environment (on Debian: `apt-get install python3-venv`): "
                + (made.stderr or made.stdout).strip().splitlines()[-1]
            )
    extras = sorted({*extras, *(installed[1:] if installed[:1] == [wanted] else [])})
    print(f"installing fullspan[{','.join(extras)}] into .venv (minutes the first time)", flush=True)
    target = f"{ROOT}[{','.join(extras)}]"
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--retries",
        "2",
    ]
    command += ["--constraint", str(ROOT / "constraints.txt"), "--editable", target]
    pip = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if pip.returncode:
        stop(why(pip.stderr))
    stamp.write_text("\n".join([wanted, *extras]) + "\n")


def usable() -> bool:
    """Whether `.venv` is whole and of this Python."""
    if not PYTHON.exists():
        return False
    code = "import pip, sys; print(sys.version)"
    found = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)
    return found.stdout.strip() == sys.version.strip()


def fingerprint() -> str:
    """Changes when what should be installed changes."""
    content = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def why(errors: str) -> str:
    """One sentence from pip's many lines."""
    for pattern in (r"No matching distribution found for (\S+)", r"satisfies the requirement (\S+)"):
        if found := re.search(pattern, errors):
            return (
                f"pip could not get {found[1]!r}: connect to a package index, or point pip at a folder of "
                "wheels (`PIP_FIND_LINKS=/folder make ...`) or at a mirror (`PIP_INDEX_URL=URL make ...`)."
            )
    lines = errors.strip().splitlines()
    last = [line for line in lines if line.startswith("ERROR")] or lines
    return f"pip could not install fullspan: {last[-1] if last else 'no message'}"


def stop(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
