"""Stands in for `silos.worker` where only the node is under test: says hello to every peer, then a fixed last line.

The first argument decides how it ends: "ok", "fail" (with a sentence), "die" (without one), "hang", "greedy" (releases
what the spec does not).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time


def main(mode: str) -> int:
    order = json.loads(sys.stdin.readline())
    print(json.dumps({"progress": {"stage": "align", "done": 1, "total": 2}}), flush=True)
    if mode == "hang":
        time.sleep(600)
    links = [socket.socket(fileno=fd) for fd in order["fds"].values()]
    for link in links:
        link.sendall(b"\1")
    for link in links:
        if link.recv(1) != b"\1":
            return 2
    if mode == "die":
        os.kill(os.getpid(), 9)
    if mode == "fail":
        print(json.dumps({"failed": {"step": "align", "reason": "2 identifiers occur twice", "party": ""}}), flush=True)
        return 1
    dealer = order["dataset"] is None
    last = {
        "result": None if dealer else {"auc": "0.7", "session": order["session"]},
        "items": [] if dealer else ["auc", "rows"] if mode == "greedy" else ["auc"],
        "cost": {
            "rounds": 1,
            "bytes_sent": dict.fromkeys(order["fds"], 1),
            "seconds": {"align": "0.1"},
            "peak_mib": 9,
            "randomness": {} if dealer else {"triple": {"correlations": 2, "words": 1234}},
        },
    }
    print(json.dumps(last), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
