"""Every host of a fleet, read from where its agents' points are kept."""

from ntpaudit.fleet.reader import Reader


def open_reader(
    *,
    url: str | None = None,
    language: str = "influxql",
    database: str = "ntpaudit",
    token: str | None = None,
    ca_file: str | None = None,
    timeout_s: float = 10.0,
    path: str | None = None,
) -> Reader:
    """Open the database at `url`, which speaks `influxql` or `promql`, else the demonstration in the file `path`.

    ReadError where that cannot be done; a database is not asked before something is read of it.
    """
    if url is None:
        from ntpaudit.fleet.embedded import EmbeddedReader

        return EmbeddedReader(path or "")
    from ntpaudit.fleet.http import Server

    if language == "promql":
        from ntpaudit.fleet.promql import PromqlReader

        return PromqlReader(Server(url, scheme="Bearer", token=token, ca_file=ca_file, timeout_s=timeout_s))
    from ntpaudit.fleet.influxql import InfluxqlReader

    server = Server(url, scheme="Token", token=token, ca_file=ca_file, timeout_s=timeout_s)
    return InfluxqlReader(server, database)
