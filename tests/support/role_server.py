"""ClickHouse's own server with our roles: a user for each, and a database that a worker has filled as pipeline_writer."""

import re
from collections.abc import Iterator, Mapping
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
    folder: Path, model: TrafficModel, *, publishers: tuple[int, ...] = ()
) -> Iterator[RoleServer]:
    """Run such a server in a folder: the user ROLE_1 has the role ROLE. The first publisher with rows in the ground truth
    has a login too.
    """
    log = folder / "log"
    with open_log(log, model.partitions) as writer:
        ground_truth = write_traffic(model, writer, lambda _: None).ground_truth
    first = int(ground_truth.rollup["publisher_id"][0])
    target = RoleTarget("adledger", publishers=(first, *publishers))
    files = {"users.xml": role_users(target, {f"{role}_1": ("", role) for role in roles.ROLES})}
    with running_server(OWN, folder / "server", files=files, more=STRICT) as running:
        with connect(address_of(running)) as admin:
            migrate(admin, database="adledger", release="test")
        settings = Settings(
            source=FilesAddress(log), clickhouse=as_user(running, f"{WRITER}_1"), rules="published",
        )  # fmt: skip
        assert run_worker(settings, until_caught_up=True, progress=lambda _: None) is not None
        yield RoleServer(running, log, ground_truth)


def role_users(target: RoleTarget, named: Mapping[str, tuple[str, str]]) -> str:
    """Return users.xml: our roles as printed, users (name -> password, role), and `default`, which migrates."""
    body = re.sub("</?clickhouse>", "", roles.users_xml(target))
    head = "<profiles><default/></profiles><quotas><default/></quotas>"
    who = "<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>"
    users = f"<default><password/>{who}</default>" + "".join(
        f"<{name}><password>{password}</password>{who}<grants><query>GRANT {role}</query></grants></{name}>"
        for name, (password, role) in named.items()
    )
    printed = body if "<users>" in body else f"{body}<users></users>"
    return f"<clickhouse>{head}{printed.replace('<users>', f'<users>{users}', 1)}</clickhouse>"


def as_user(server: AnyServer, user: str) -> ServerAddress:
    """Return the server's address for a user."""
    return ServerAddress(server.host, server.port, server.http_port, user=user)
