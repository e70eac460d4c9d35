"""ClickHouse's own server with our roles: a user for each, and a database that a worker has filled as pipeline_writer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.settings import Settings
from adledger.schemas import roles
from adledger.schemas.migrate import migrate
from adledger.schemas.roles import WRITER, RoleTarget
from adledger.sinks.connection import connect
from tests.support.clickhouse_servers import OWN, AnyServer, address_of, running_server

STRICT = (
    "<access_control_improvements><select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>"
    "<users_without_row_policies_can_read_rows>true</users_without_row_policies_can_read_rows>"
    "</access_control_improvements>"
)
"""As the configuration that ClickHouse is shipped with has it."""


@dataclass(frozen=True, slots=True)
class RoleServer:
    """The server, the log in a folder that the worker has read, and the log's ground truth."""

    server: AnyServer
    log: Path
    ground_truth: GroundTruth


@contextmanager
def role_server(
    folder: Path, model: TrafficModel, *, publishers: tuple[int, ...] = (), password: str = ""
) -> Iterator[RoleServer]:
    """Run such a server in a folder. The first publisher with rows in the ground truth has a login too."""
    log = folder / "log"
    with open_log(log, model.partitions) as writer:
        ground_truth = write_traffic(model, writer, lambda _: None).ground_truth
    first = int(ground_truth.rollup["publisher_id"][0])
    files = {"users.xml": role_users(RoleTarget("adledger", publishers=(first, *publishers)), password)}
    with running_server(OWN, folder / "server", files=files, more=STRICT) as running:
        with connect(address_of(running)) as admin:
            migrate(admin, database="adledger", release="test")
        settings = Settings(
            source=FilesAddress(log), clickhouse=as_user(running, f"{WRITER}_1", password), rules="published",
        )  # fmt: skip
        assert run_worker(settings, until_caught_up=True, progress=lambda _: None) is not None
        yield RoleServer(running, log, ground_truth)


def role_users(target: RoleTarget, password: str = "") -> str:
    """Return users.xml: our roles as printed, the user ROLE_1 for each of them, and `default`, which migrates."""
    printed = roles.users_xml(target)
    head = "<profiles><default/></profiles><quotas><default/></quotas>"
    who = "<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>"
    named = "".join(
        f"<{r}_1><password>{password}</password>{who}<grants><query>GRANT {r}</query></grants></{r}_1>"
        for r in roles.ROLES
    )
    own = f"<users><default><password/>{who}</default>{named}"
    body = re.sub("</?clickhouse>", "", printed)
    assert "<users>" in body
    return f"<clickhouse>{head}{body.replace('<users>', own, 1)}</clickhouse>"


def as_user(server: AnyServer, user: str, password: str = "") -> ServerAddress:
    """Return the server's address for a user."""
    return ServerAddress(server.host, server.port, server.http_port, user=user, password=password)
