"""Check docstrings with pydoclint, less what the house's docstrings leave out on purpose.

A section stands where it adds something: a first line that begins with "Return" needs no Returns
section, and a function whose arguments explain themselves needs no Args. What is documented must
exist, though, and stand in the right order. pydoclint has no switch for single codes.

Run: python .ci/docstrings.py PATH [PATH ...]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LEFT_OUT = {
    "DOC101": "arguments without an entry",
    "DOC201": "no Returns section",
    "DOC402": "no Yields section",
}


def is_violation(line: str) -> bool:
    """Tell whether a line of pydoclint's output is a problem for us."""
    code = re.search(r"\bDOC\d{3}\b", line)
    if code is None:
        return False
    if code.group() == "DOC103":
        # The lists of names differ; it is an error only where a name exists in the docstring alone.
        return "in the docstring but not in the function signature" in line
    return code.group() not in LEFT_OUT


def main(paths: list[str]) -> int:
    """Run pydoclint over `paths` and write what remains; 1 where something does."""
    command = [str(Path(sys.executable).parent / "pydoclint"), "--quiet", *paths]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    if result.returncode and not re.search(r"\bDOC\d{3}\b", output):
        sys.stderr.write(output)  # pydoclint itself failed
        return result.returncode
    found = 0
    file = ""
    for line in output.splitlines():
        if line and not line.startswith(" "):
            file = line
        elif is_violation(line):
            found += 1
            sys.stdout.write(f"{file}:{line.strip()}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
