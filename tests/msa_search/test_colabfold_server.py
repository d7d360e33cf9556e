"""The client of ColabFold's server, against a server that behaves badly."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from foldcp.complex import Chain
from foldcp.datasets.msas import open_msas, paired_name
from foldcp.features.msa.parse import UNPAIRED, parse_msas
from foldcp.pipeline.msa_search.search import FoundAlignment, SearchFailure
from foldcp.pipeline.msa_search.server.archive import DamagedArchiveError, read_members
from foldcp.pipeline.msa_search.server.colabfold_server import ColabFoldServer
from foldcp.pipeline.msa_search.server.connection import (
    Access,
    Connection,
    ServerError,
    access_from_environment,
    basic_access,
    token_access,
)
from foldcp.pipeline.msa_search.server.tickets import FILE_NAME
from foldcp.pipeline.msa_search.stage import search_pairs
from foldcp.pipeline.msa_search.store import MsaStore
from tests.msa_search.server import FakeServer, Reply, archive, blocks, running_server, status

ONE = "MKTAY"
TWO = "GSHMW"
ENV = "bfd.mgnify30.metaeuk30.smag30.a3m"
SUBMIT = "/ticket/msa"
TICKET = "/ticket/T1"
RESULT = "/result/download/T1"


@dataclass
class Time:
    """Time that passes only where the client sleeps."""

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running_server() as fake:
        yield fake


@pytest.fixture
def time() -> Time:
    return Time()


def client(server: FakeServer, time: Time, **arguments: Any) -> ColabFoldServer:
    arguments.setdefault("access", Access())
    return ColabFoldServer(server.url, sleep=time.sleep, clock=time.clock, **arguments)


def result(*queries: str) -> bytes:
    """An archive of alignments of which each has a row besides the query."""
    uniref = blocks(*([query, "-" + query[1:]] for query in queries))
    return archive({"uniref.a3m": uniref, ENV: blocks(*([query] for query in queries))})


def serve(server: FakeServer, data: bytes) -> None:
    server.replies[SUBMIT] = [status("PENDING")]
    server.replies[TICKET] = [status("COMPLETE")]
    server.replies[RESULT] = [Reply(data)]


def only_reason(found: list[FoundAlignment | SearchFailure]) -> str:
    assert len(found) == 1
    assert isinstance(found[0], SearchFailure)
    return found[0].reason


def texts(found: FoundAlignment | SearchFailure) -> list[str]:
    assert isinstance(found, FoundAlignment), found
    return [row.text for row in found.rows]


def test_alignments_are_merged_with_the_query_first(server: FakeServer, time: Time) -> None:
    uniref = blocks([ONE, "MKaTAF", "-KTA-"], [TWO])
    environmental = blocks([ONE, "-KTA-", "MRTAY"], [TWO, "GSH--", "-----"])
    serve(server, archive({"uniref.a3m": uniref, ENV: environmental, "msa.sh": b"rm -r /"}))
    server.replies[TICKET] = [status("PENDING"), status("RUNNING"), status("COMPLETE")]
    found = list(client(server, time).search([ONE, TWO]))
    assert texts(found[0]) == [ONE, "MKaTAF", "-KTA-", "MRTAY"]
    assert texts(found[1]) == [TWO, "GSH--"]
    sent = server.requests[0]
    assert sent.form == {"q": f">101\n{ONE}\n>102\n{TWO}\n", "mode": "env"}
    assert sent.headers["User-Agent"] == f"foldcp/{version('foldcp')}"
    assert server.paths() == [SUBMIT, TICKET, TICKET, TICKET, RESULT]


def test_batches_and_copies(server: FakeServer, time: Time) -> None:
    serve(server, archive({"uniref.a3m": blocks([ONE])}, packed=False))
    server.replies[RESULT].append(Reply(archive({"uniref.a3m": blocks([TWO])})))
    search = client(server, time, mode="all", batch_size=1).search([ONE, ONE, TWO])
    assert [texts(found) for found in search] == [[ONE], [TWO]]


def test_rate_limits_are_respected(server: FakeServer, time: Time) -> None:
    serve(server, result(ONE))
    server.replies[SUBMIT] = [
        Reply(code=429, headers={"Retry-After": "120"}),
        Reply(code=503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        status("RATELIMIT", ""),
        status("RATELIMIT", ""),
        status("PENDING"),
    ]
    assert texts(next(client(server, time).search([ONE]))) == [ONE, "-KTAY"]
    waits = [seconds for seconds in time.sleeps if seconds > 1]
    assert 120 <= waits[0] <= 150
    assert 10 <= waits[1] <= 12.5
    assert 5 <= waits[2] <= 6.25
    assert 10 <= waits[3] <= 12.5


def test_requests_are_spaced(server: FakeServer, time: Time) -> None:
    serve(server, result(ONE))
    list(client(server, time, min_interval=7).search([ONE]))
    assert time.sleeps == [7, 7]


def test_a_server_that_stays_busy_stops_the_search(server: FakeServer, time: Time) -> None:
    server.replies[SUBMIT] = [status("RATELIMIT", "")]
    with pytest.raises(ValueError, match="accepts no more searches, for an hour"):
        list(client(server, time).search([ONE]))
    assert 3600 < time.now < 6000
    server.replies[SUBMIT] = [Reply(code=429)]
    with pytest.raises(ValueError, match="no request at present"):
        list(client(server, time).search([ONE]))


def test_maintenance_is_waited_for_and_keeps_the_ticket(
    server: FakeServer, time: Time, tmp_path: Path
) -> None:
    serve(server, result(ONE))
    server.replies[TICKET] = [status("MAINTENANCE")]
    search = client(server, time, state_folder=tmp_path)
    with pytest.raises(ValueError, match="in maintenance, for an hour"):
        list(search.search([ONE]))
    server.replies[TICKET] = [status("MAINTENANCE"), status("COMPLETE")]
    assert texts(next(search.search([ONE]))) == [ONE, "-KTAY"]
    assert server.paths().count(SUBMIT) == 1


@pytest.mark.parametrize("at", [SUBMIT, TICKET])
def test_errors_are_the_reason(server: FakeServer, time: Time, tmp_path: Path, at: str) -> None:
    serve(server, result(ONE))
    server.replies[at] = [status("ERROR", error="no such sequence")]
    found = list(client(server, time, state_folder=tmp_path).search([ONE]))
    assert "no such sequence" in only_reason(found)
    server.replies[at] = [status("COMPLETE")]
    assert texts(next(client(server, time, state_folder=tmp_path).search([ONE])))
    assert server.paths().count(SUBMIT) == 2


def test_an_interrupted_run_asks_for_its_ticket(
    server: FakeServer, time: Time, tmp_path: Path
) -> None:
    serve(server, result(ONE, TWO))
    next(client(server, time, state_folder=tmp_path).search([ONE, TWO]))  # and no further
    (kept,) = json.loads((tmp_path / FILE_NAME).read_text())
    assert kept["ticket"] == "T1" and kept["sequences"] == [ONE, TWO]
    other = client(server, time, state_folder=tmp_path, mode="all")
    server.replies["/ticket/msa"] = [status("ERROR")]  # another mode is another search
    assert isinstance(next(other.search([TWO])), SearchFailure)
    server.replies["/ticket/msa"] = [status("PENDING")]
    rest = list(client(server, time, state_folder=tmp_path).search([TWO]))
    assert [texts(found) for found in rest] == [[TWO, "-" + TWO[1:]]]
    assert server.paths().count(SUBMIT) == 2
    assert json.loads((tmp_path / FILE_NAME).read_text()) == []
    list(client(server, time, state_folder=tmp_path).search([ONE, TWO]))
    assert server.paths().count(SUBMIT) == 3


def test_a_slow_search_is_left_for_the_next_run(
    server: FakeServer, time: Time, tmp_path: Path
) -> None:
    serve(server, result(ONE))
    server.replies[TICKET] = [status("RUNNING")]
    found = list(client(server, time, state_folder=tmp_path).search([ONE]))
    assert "not done after 6 hours" in only_reason(found)
    server.replies[TICKET] = [status("COMPLETE")]
    assert texts(next(client(server, time, state_folder=tmp_path).search([ONE])))
    assert server.paths().count(SUBMIT) == 1


def test_a_forgotten_ticket_is_submitted_again(
    server: FakeServer, time: Time, tmp_path: Path
) -> None:
    serve(server, result(ONE))
    server.replies[SUBMIT] = [status("PENDING"), status("PENDING", "T2")]
    server.replies[TICKET] = [status("UNKNOWN")]
    server.replies["/ticket/T2"] = [status("UNKNOWN"), status("COMPLETE")]  # too early
    server.replies["/result/download/T2"] = [Reply(result(ONE))]
    assert texts(next(client(server, time, state_folder=tmp_path).search([ONE])))
    assert server.paths().count(SUBMIT) == 2


def test_a_ticket_that_is_always_forgotten_fails(server: FakeServer, time: Time) -> None:
    serve(server, result(ONE))
    server.replies[RESULT] = [Reply(code=404)]
    assert "has forgotten" in only_reason(list(client(server, time).search([ONE])))


@pytest.mark.parametrize("ticket", ["../admin", "", "a" * 300, "a/b"])
def test_hostile_tickets(server: FakeServer, time: Time, ticket: str) -> None:
    server.replies[SUBMIT] = [status("PENDING", ticket)]
    assert "no valid ticket" in only_reason(list(client(server, time).search([ONE])))


def test_a_damaged_state_is_named(server: FakeServer, time: Time, tmp_path: Path) -> None:
    entry = {"ticket": "../admin", "url": "u", "path": "p", "mode": "env", "sequences": [ONE]}
    for content in ([entry], [{}], {"a": "b"}, [1], 1):
        (tmp_path / FILE_NAME).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"server_tickets\.json: damaged, delete it"):
            list(client(server, time, state_folder=tmp_path).search([ONE]))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(dropped=True),
        Reply(code=500),
        Reply(result(ONE), sent=50),
        Reply(result(ONE)[:60]),
        Reply(b"<html>busy</html>"),
    ],
    ids=["dropped", "error", "cut off", "truncated gzip", "html"],
)
def test_a_failed_download_is_repeated(server: FakeServer, time: Time, reply: Reply) -> None:
    serve(server, result(ONE))
    server.replies[RESULT].insert(0, reply)
    assert texts(next(client(server, time).search([ONE]))) == [ONE, "-KTAY"]
    assert server.paths().count(RESULT) == 2
    server.replies[RESULT] = [reply]
    try:
        found = list(client(server, time).search([ONE]))
    except ValueError as error:
        assert "no answer in 8 attempts" in str(error)
    else:
        assert only_reason(found)


def test_half_an_answer_is_asked_for_again(server: FakeServer, time: Time) -> None:
    server.replies["/x"] = [Reply(b"abcdef", sent=3), Reply(b"abcdef")]
    connection = Connection(server.url, sleep=time.sleep, clock=time.clock)
    assert connection.request("x", 6) == b"abcdef"
    assert len(server.requests) == 2
    with pytest.raises(ServerError, match="exceeds 5 bytes"):
        connection.request("x", 5)


def test_an_answer_that_is_no_json(server: FakeServer, time: Time) -> None:
    server.replies[SUBMIT] = [Reply(b"<html>")]
    assert "does not answer as" in only_reason(list(client(server, time).search([ONE])))


def test_a_server_that_is_not_there(time: Time) -> None:
    with running_server() as fake:
        pass
    with pytest.raises(ValueError, match="no answer in 8 attempts"):
        list(client(fake, time).search([ONE]))


WRONG = {
    "other query": {"uniref.a3m": blocks(["MKTAW"])},
    "longer query": {"uniref.a3m": blocks([ONE + "A"])},
    "too many queries": {"uniref.a3m": blocks([ONE], [TWO])},
    "no query": {"uniref.a3m": b""},
    "another number": {"uniref.a3m": blocks([ONE], first=7)},
    "twice": {"uniref.a3m": blocks([ONE]) + blocks([ONE])},
    "short row": {"uniref.a3m": blocks([ONE, "MKT"])},
    "no letters": {"uniref.a3m": blocks([ONE, "MK;AY"])},
    "no file": {"other.a3m": blocks([ONE])},
    "a path": {"../uniref.a3m": blocks([ONE])},
    "no header": {"uniref.a3m": ONE.encode()},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data_is_never_used(server: FakeServer, time: Time, name: str) -> None:
    serve(server, archive(WRONG[name]))
    assert only_reason(list(client(server, time, mode="all").search([ONE])))


def test_rare_letters_of_a_query_may_come_back_as_others(server: FakeServer, time: Time) -> None:
    serve(server, archive({"uniref.a3m": blocks(["MXTAY", "MCTAY"])}))
    assert texts(next(client(server, time, mode="all").search(["MUTAY"]))) == ["MUTAY", "MCTAY"]


def test_links_devices_and_sparse_members_are_not_read() -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("uniref.a3m")
            info.type = kind
            info.linkname = "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(DamagedArchiveError, match="has no file"):
            read_members(buffer.getvalue(), ["uniref.a3m"])


def test_archives_are_bounded() -> None:
    data = archive({"uniref.a3m": bytes(1_000_000)})
    assert len(data) < 10_000
    with pytest.raises(DamagedArchiveError, match="exceeds 500,000 bytes"):
        read_members(data, ["uniref.a3m"], max_bytes=500_000)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "size", "count", "problem"),
    [
        (tarfile.REGTYPE, -1024, 1, "a file of -1024 bytes"),
        (tarfile.REGTYPE, 2**70, 1, "truncated or damaged"),
        (tarfile.GNUTYPE_LONGNAME, 0, 3_000, "recursion"),
    ],
)
def test_sizes_and_chains_of_headers_are_bounded(
    kind: bytes, size: int, count: int, problem: str
) -> None:
    info = tarfile.TarInfo("uniref.a3m")
    info.type = kind
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(DamagedArchiveError, match=problem):
        read_members(header * count + bytes(1024), ["uniref.a3m"])


def test_access(server: FakeServer, time: Time, tmp_path: Path) -> None:
    serve(server, result(ONE))
    search = client(server, time, access=basic_access("me", "secret"), state_folder=tmp_path)
    next(search.search([ONE]))
    assert server.requests[-1].headers["Authorization"] == "Basic bWU6c2VjcmV0"
    assert "c2VjcmV0" not in repr(search) + str(search.identity)
    assert "c2VjcmV0" not in (tmp_path / FILE_NAME).read_text()
    next(client(server, time, access=token_access("secret", "X-API-Key")).search([ONE]))
    assert server.requests[-1].headers["X-Api-Key"] == "secret"
    server.replies[SUBMIT] = [Reply(code=401)]
    with pytest.raises(ValueError, match=r"no access \(HTTP 401\)"):
        list(client(server, time).search([ONE]))


def test_access_does_not_follow_to_another_host(server: FakeServer, time: Time) -> None:
    serve(server, result(ONE))
    with running_server() as other:
        other.replies["/x"] = [status("COMPLETE")]
        server.replies[TICKET] = [Reply(code=302, headers={"Location": f"{other.url}/x"})]
        next(client(server, time, access=token_access("secret")).search([ONE]))
        assert "Authorization" not in other.requests[0].headers


def test_access_from_the_environment() -> None:
    assert access_from_environment({}) == Access()
    user = {"FOLDCP_MSA_USER": "me", "FOLDCP_MSA_PASSWORD": "secret"}
    assert access_from_environment(user) == basic_access("me", "secret")
    token = {"FOLDCP_MSA_TOKEN": "secret"}
    assert access_from_environment(token).headers == (("Authorization", "Bearer secret"),)
    with pytest.raises(ValueError, match="both"):
        access_from_environment({"FOLDCP_MSA_USER": "me"})
    with pytest.raises(ValueError, match="not both"):
        access_from_environment(user | token)
    with pytest.raises(ValueError, match="line break") as error:
        access_from_environment({"FOLDCP_MSA_TOKEN": "secret\nx"})
    assert "secret" not in str(error.value)
    with pytest.raises(ValueError, match="invalid header name 'a b'"):
        token_access("secret", "a b")


@pytest.mark.parametrize("url", ["", "ftp://a.b", "http://", "http://a b", "http://a/?q=1", "a.b"])
def test_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="server of alignments"):
        ColabFoldServer(url, access=Access())


def test_an_address_has_no_password() -> None:
    with pytest.raises(ValueError, match="FOLDCP_MSA_USER") as error:
        ColabFoldServer("https://me:secret@a.b", access=Access())
    assert "secret" not in str(error.value)


def test_pairs_become_one_alignment_of_a_complex(
    server: FakeServer, time: Time, tmp_path: Path
) -> None:
    paired = blocks([TWO, "GSHM-", "-----", "aGSH--"], [ONE, "MKT--", "MKTAF", "MK--bY"])
    server.replies["/ticket/pair"] = [status("COMPLETE")]
    server.replies[TICKET] = [status("COMPLETE")]
    server.replies[RESULT] = [Reply(archive({"pair.a3m": paired}))]
    search = client(server, time)
    with MsaStore(tmp_path, search.identity) as store:
        assert str(search_pairs([[ONE, TWO, ONE]], search, store)).endswith("1 added, 0 failed")
        assert server.requests[0].form["q"] == f">101\n{TWO}\n>102\n{ONE}\n"
        assert server.requests[0].form["mode"] == "pairgreedy"
        assert str(search_pairs([[TWO, ONE]], search, store)).startswith("1 stored before, 0 added")
    path = tmp_path / paired_name([ONE, TWO])
    assert gzip.decompress(path.read_bytes()).startswith(b"#5,5\t1,1\n>101\t102\nGSHMWMKTAY\n")
    _, two, one = parse_msas(path, gzip.decompress(path.read_bytes()))
    assert [(r.key, r.text) for r in two()] == [
        (UNPAIRED, b"GSHMW"),
        (2, b"GSHM-"),
        (3, b"GSH--"),
    ]
    assert [(r.key, r.text) for r in one()] == [(UNPAIRED, b"MKTAY"), (2, b"MKT--"), (3, b"MK--bY")]
    chains = [Chain("A", "protein", ONE), Chain("B", "protein", TWO), Chain("R", "rna", "ACGU")]
    found = open_msas([tmp_path]).with_msas(chains, ["x"])
    assert [chain.paired_msa for chain in found] == [path, path, None]
    (tmp_path / paired_name([ONE])).write_bytes(path.read_bytes())  # pairs with nothing
    assert open_msas([tmp_path]).with_msas(chains[:1], ["x"])[0].paired_msa is None


def test_pairs_of_different_numbers_of_rows(server: FakeServer, time: Time, tmp_path: Path) -> None:
    paired = blocks([TWO, "GSHM-"], [ONE])
    server.replies["/ticket/pair"] = [status("COMPLETE")]
    server.replies[TICKET] = [status("COMPLETE")]
    server.replies[RESULT] = [Reply(archive({"pair.a3m": paired}))]
    search = client(server, time)
    with MsaStore(tmp_path, search.identity) as store:
        (failure,) = search_pairs([[ONE, TWO]], search, store).failures
    assert failure.sequence == f"{TWO}:{ONE}"
    assert "different numbers of rows: 2, 1" in failure.reason
    with pytest.raises(ValueError, match="two distinct"):
        list(search.search_pairs([[ONE, ONE]]))


def test_pairs_are_asked_for_again_until_they_are_stored(
    server: FakeServer, time: Time, tmp_path: Path
) -> None:
    server.replies["/ticket/pair"] = [status("PENDING")]
    server.replies[TICKET] = [status("COMPLETE")]
    server.replies[RESULT] = [Reply(archive({"pair.a3m": blocks([TWO], [ONE])}))]
    next(client(server, time, state_folder=tmp_path).search_pairs([[ONE, TWO]]))
    assert len(list(client(server, time, state_folder=tmp_path).search_pairs([[ONE, TWO]]))) == 1
    assert server.paths().count("/ticket/pair") == 1
    assert json.loads((tmp_path / FILE_NAME).read_text()) == []
