"""Known vulnerabilities in the versions of .ci/lock.txt, by pip-audit.

    python .ci/audit.py

Exit status 1 if there are any. Where pip-audit's database cannot be reached it says so and ends
with 0: pip-audit itself calls packages that it could not look up "no known vulnerabilities".
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("lock.txt")


def audit() -> int:
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "-f", "json"], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        packages = []
    known = [package for package in packages if "vulns" in package]
    found = [f"{p['name']} {p['version']}: {v['id']}" for p in known for v in p["vulns"]]
    if not known:
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        reason = packages[0]["skip_reason"] if packages else reason
        print(f"dependency audit: SKIPPED, its database cannot be reached ({reason[:200]})")
        return 0
    print(*found, sep="\n", end="\n" if found else "")
    print(
        f"dependency audit: {len(found)} known vulnerabilities in {len(known)} packages; "
        f"{len(packages) - len(known)} could not be looked up"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(audit())
