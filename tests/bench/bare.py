"""A reader without any judgement, to compare with: ask what a file says, one after another, and parse it.

`python tests/bench/bare.py URL FILE`; the file holds a JSON list of paths and their parameters. The standard library
alone, and no more of it than is needed.
"""

import http.client
import json
import sys
import urllib.parse
from pathlib import Path


def read(url: str, questions: list[tuple[str, dict[str, str]]]) -> int:
    """Ask over one connection, and return how many octets came."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
    octets = 0
    for path, parameters in questions:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", path, urllib.parse.urlencode(parameters), form)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
        for line in body.splitlines():
            if line.startswith(b"{"):
                json.loads(line)
            else:  # a sample in the text format of Prometheus
                float(line.rsplit(b" ", 2)[1])
        octets += len(body)
    connection.close()
    return octets


if __name__ == "__main__":
    print(read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
