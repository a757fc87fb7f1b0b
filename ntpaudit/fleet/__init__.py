"""Reads every host of a fleet from the database of its agents' points."""

from collections.abc import Mapping

from ntpaudit.fleet.reader import Reader


def open_reader(
    *,
    url: str | None = None,
    language: str = "influxql",
    database: str = "ntpaudit",
    env: str | None = None,
    token: str | None = None,
    ca_file: str | None = None,
    timeout_s: float = 10.0,
    path: str | None = None,
    keys: Mapping[str, str] | None = None,
) -> Reader:
    """Open the database at `url`, in `influxql` or `promql`, otherwise the demonstration in the file `path`.

    ReadError if that fails; nothing is sent to a database yet. If `env` is given, only hosts of that environment are
    read. `keys` has the names of `url`, `language` and `database` in messages (default: the keys of the configuration),
    and the command that makes a `demo`.
    """
    if url is None:
        from ntpaudit.fleet.demo_store import DemoReader

        return DemoReader(path or "", (keys or {}).get("demo", "ntpaudit demo"))
    from ntpaudit.net.http import KEYS, DatabaseServer

    server = DatabaseServer(
        url, token=token, ca_file=ca_file, timeout_s=timeout_s, language=language, keys=keys or KEYS
    )
    if language == "promql":
        from ntpaudit.fleet.promql import PromqlReader

        return PromqlReader(server, env)
    from ntpaudit.fleet.influxql import InfluxqlReader

    return InfluxqlReader(server, database, env)
