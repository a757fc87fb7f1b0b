"""A reader without any judgement, to compare with: ask what a file says, one after another, and parse the JSON.

`python tests/bench/bare.py URL FILE`; the file holds a JSON list of paths and their parameters. The standard library
alone, and no more of it than is needed.
"""

import http.client
import json
import sys
import urllib.parse
from pathlib import Path


def read(url: str, questions: list[tuple[str, dict[str, str]]]) -> int:
    """Ask over one connection, and return how many octets of JSON came."""
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
            json.loads(line)
        octets += len(body)
    connection.close()
    return octets


if __name__ == "__main__":
    print(read(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
