"""`make audit`: known vulnerabilities in the locked versions, by pip-audit, in an environment of its own.

pip-audit asks PyPI's JSON API, which mirrors of its files lack. It brings 30 packages, so it is fetched only where
there are advisories to be asked for, and none of them is among those that loadbench is developed with.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-dev.lock"
HOME = ROOT / ".venv-audit"
TOOL = "pip-audit>=2.9,<3"
ADVISORIES = "https://pypi.org/pypi/pip/24.0/json"
"""What pip-audit asks of each package, here of one."""
WITHIN_S = 5.0
LEFT_OUT = "audit: left out: "


def has_advisories(url: str = ADVISORIES, within_s: float = WITHIN_S) -> bool:
    """Whether somebody answers there who knows of vulnerabilities."""
    try:
        with urllib.request.urlopen(url, timeout=within_s) as response:
            document = json.load(response)
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and isinstance(document.get("vulnerabilities"), list)


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """The exit code and the words for a report of pip-audit in JSON."""
    packages = report["dependencies"]
    asked = [one for one in packages if "vulns" in one]
    found = [
        f"audit: {one['name']} {one['version']}: {flaw['id']}"
        + (f", mended in {', '.join(flaw['fix_versions'])}" if flaw.get("fix_versions") else ", not mended yet")
        for one in asked
        for flaw in one["vulns"]
    ]
    if found:
        return 1, [*found, "audit: make lock ARGS=--upgrade takes newer versions"]
    if not asked:
        return 0, [f"{LEFT_OUT}the index has no advisories"]
    rest = f"; {len(packages) - len(asked)} could not be looked up" if len(packages) > len(asked) else ""
    return 0, [f"audit: no known vulnerability in {len(asked)} packages{rest}"]


def command(uv: str | None) -> list[str]:
    """pip-audit's, fetched at the first time.

    Raises:
        CalledProcessError: It cannot be.
    """
    if uv:
        return [uv, "tool", "run", "--quiet", "--from", TOOL, "pip-audit"]
    program = HOME / ("Scripts/pip-audit.exe" if sys.platform == "win32" else "bin/pip-audit")
    if not program.exists():
        venv.create(HOME, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOOL]
        subprocess.run([str(program.with_name("python")), *install], check=True)
    return [str(program)]


def main(words: Sequence[str] | None = None) -> int:
    """Look; the exit code is 1 where there is something, and 0 where nobody can tell."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("--uv", default=shutil.which("uv") or "", help="uv, where it is installed")
    given, more = parser.parse_known_args(words)
    if not has_advisories():
        print(f"{LEFT_OUT}the index has no advisories")
        return 0
    look = ["-r", str(LOCK), "--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off", *more]
    try:
        done = subprocess.run([*command(given.uv), *look], capture_output=True, text=True, check=False)
        report = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"{LEFT_OUT}pip-audit does not run here: {str(error).splitlines()[0]}", file=sys.stderr)
        return 0
    code, lines = verdict(report)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
