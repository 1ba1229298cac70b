"""Judges the reports of Autobahn's wstest, which ends with 0 whatever it found.

Prints every case that failed and what the report says about it, and ends with 1 if there is one, or if cases are
missing. Tested by running it against servers that are known to fail (`run.sh --url`).
"""

import collections
import json
import pathlib
import sys

# "NON-STRICT": allowed by the RFC, though not what Autobahn likes best. "INFORMATIONAL": nothing was required.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def main(reports: pathlib.Path, expected: int) -> int:
    index = json.loads((reports / "index.json").read_text())
    if len(index) != 1:
        print(f"one server was tested, but the report knows {sorted(index)}")
        return 1
    (cases,) = index.values()

    by_number = lambda name: [int(part) for part in name.split(".")]
    bad = 0
    for name in sorted(cases, key=by_number):
        case = cases[name]
        if case["behavior"] in GOOD and case["behaviorClose"] in GOOD:
            continue
        bad += 1
        report = json.loads((reports / case["reportfile"]).read_text())
        print(f"{name}: {case['behavior']}, close {case['behaviorClose']} ({case['remoteCloseCode']})")
        print(f"    {report['description'].strip()}")
        print(f"    expected: {report['expectation'].strip()}")
        print(f"    result:   {report['result'].strip()}; {report['resultClose'].strip()}")

    counts = collections.Counter(case["behavior"] for case in cases.values())
    print(f"{len(cases)} cases: " + ", ".join(f"{count} {what}" for what, count in counts.most_common()))
    if len(cases) != expected:
        print(f"{expected} cases were to be run: wstest ended early, or the selection changed")
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), int(sys.argv[2])))
