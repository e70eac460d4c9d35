"""From a model to the kernels' lookup tables: integers only, rounded coarsely enough to be the same everywhere."""

import ipaddress
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from adledger.loadtest.traffic.kernels.aliases import alias_table
from adledger.loadtest.traffic.kernels.draw import QUANTILES
from adledger.loadtest.traffic.kernels.memory import SLACK_BYTES
from adledger.loadtest.traffic.kernels.render import FIELD_NAMES
from adledger.loadtest.traffic.kernels.shapes import I64, LITERALS, Tables, Texts
from adledger.loadtest.traffic.model import HOUR_MS, TrafficModel
from adledger.schemas.wire import currency_code

Array = npt.NDArray[np.generic]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MASK64 = 2**64 - 1
MINUTE_MS = 60_000
RAMP_STEP_MS = 100
STAGGERS = 8
LAYOUTS = 8
CLICK_DELAY_MS_MIN = 1_000
WORDS = (
    "news", "daily", "sport", "kitchen", "travel", "garden", "music", "movie", "games", "health", "money", "style",
    "auto", "photo", "craft", "weather", "family", "science", "books", "radio", "city", "local", "market", "nature",
    "review", "guide", "live", "forum", "video", "story", "trend", "world",
)  # fmt: skip


def mix64(x: int) -> int:
    """Return splitmix64's finaliser of x, as `kernels.draw.mix64` does."""
    z = (x + 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def _log_normal(median: float, sigma: float, least: int = 0) -> I64:
    """Return the quantiles of a log-normal distribution, whole numbers."""
    normal = NormalDist()
    points = (normal.inv_cdf((k + 0.5) / (QUANTILES + 1)) for k in range(QUANTILES + 1))
    return np.array([max(least, round(median * math.exp(sigma * z))) for z in points], np.int64)


def _power_law_users(model: TrafficModel) -> I64:
    """Return the quantiles of user numbers whose weights are (n + head) ** -exponent."""
    head, power = model.user_head_users, 1.0 - model.user_tail_exponent
    bottom, top = head**power, (head + model.users) ** power
    points = (bottom + (top - bottom) * k / QUANTILES for k in range(QUANTILES + 1))
    return np.array([round(point ** (1 / power)) - head for point in points], np.int64)


def step_ms(model: TrafficModel) -> int:
    """Return the time step of the arrival table: a minute, or RAMP_STEP_MS with ramps."""
    return RAMP_STEP_MS if model.ramps else MINUTE_MS


def _ramp_arrivals(model: TrafficModel) -> tuple[I64, float]:
    """Return what `_arrivals` returns, for ramps; after the last one it continues at the mean rate."""
    step_seconds = RAMP_STEP_MS / 1000
    weights = []
    for ramp in model.ramps:
        steps = max(1, round(ramp.seconds / step_seconds))
        climb = (ramp.rate_to - ramp.rate_from) / steps
        weights += [max(0, round((ramp.rate_from + climb * (k + 0.5)) * 1_000)) for k in range(steps)]
    total = max(1, sum(weights))
    slot_weight = total * model.records_per_slot / model.events
    mean = max(1, total // len(weights))
    beyond = math.ceil(max(0.0, slot_weight * (model.events + 2) - total) / mean) + 2
    return np.concatenate([[0], np.cumsum(weights + [mean] * beyond)]).astype(np.int64), slot_weight


def _arrivals(model: TrafficModel) -> tuple[I64, float]:
    """Return the cumulative weight at each step_ms, and the weight of one slot.

    The table continues past the run's nominal end, to where the run would end if no copy or click came in time.
    """
    if model.ramps:
        return _ramp_arrivals(model)
    swing = (model.day_peak_to_trough - 1.0) / (model.day_peak_to_trough + 1.0)
    nominal = max(1, round(model.duration_hours * 60))
    start_minute = model.start_ms // MINUTE_MS
    cumulative = [0]
    needed = math.inf
    while cumulative[-1] <= needed:
        minute = len(cumulative) - 1
        factor = 1.0 + swing * math.cos(((start_minute + minute) / 60 - model.day_peak_hour) * math.tau / 24)
        for burst in model.bursts:
            if burst.start_minute <= minute < burst.start_minute + burst.minutes:
                factor *= burst.factor
        active = (start_minute + minute) % 60 < model.active_minutes_per_hour
        cumulative.append(cumulative[-1] + (round(factor * 10_000) if active else 0))
        if minute + 1 >= nominal and cumulative[-1] and needed == math.inf:
            slot_weight = cumulative[-1] * model.records_per_slot / model.events
            needed = slot_weight * (model.events + 2)
    return np.array(cumulative, np.int64), slot_weight


def _sessions(model: TrafficModel, cum: I64, step: float) -> I64:
    """Return the number of sessions in each window of one stagger."""
    steps = model.session_minutes * MINUTE_MS // step_ms(model)
    ends = np.minimum(np.arange(0, len(cum) + 2 * steps, steps), len(cum) - 1)
    slots = np.diff(cum[ends]) / step
    per_stagger = slots / (STAGGERS * model.session_impressions_mean)
    return np.clip(np.rint(per_stagger), 1, 2**31).astype(np.int64)


def _text_table(texts: Sequence[bytes]) -> Array:
    """Return a text table: for each entry (offset << 16 | length) as uint64, then the texts, then the slack."""
    offsets = np.cumsum([8 * len(texts), *map(len, texts)])[:-1]
    index = np.array([int(at) << 16 | len(text) for at, text in zip(offsets, texts, strict=True)], np.uint64)
    return np.concatenate(
        [index.view(np.uint8), np.frombuffer(b"".join(texts) + bytes(SLACK_BYTES), np.uint8)]
    )


def catalog_rows(name: str) -> list[list[str]]:
    """Return the tab-separated rows of a catalog file, without its comments."""
    text = resources.files("adledger.loadtest.traffic.catalog").joinpath(name).read_text("utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


@cache
def user_agents() -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """Return user agents and weights, desktops first, and how many are desktops."""
    rows = sorted(catalog_rows("user_agents.tsv"), key=lambda row: row[1] != "desktop")
    desktops = sum(row[1] == "desktop" for row in rows)
    return tuple(row[2] for row in rows), tuple(int(row[0]) for row in rows), desktops


@cache
def networks() -> tuple[tuple[tuple[Network, str, int], ...], int]:
    """Return (network, country, weight), homes first, and how many are homes."""
    rows = sorted(catalog_rows("networks.tsv"), key=lambda row: row[3] != "home")
    homes = sum(row[3] == "home" for row in rows)
    return tuple((ipaddress.ip_network(row[0]), row[1], int(row[2])) for row in rows), homes


@cache
def bots() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return user agents of crawlers, and of programs that use a library."""
    rows = catalog_rows("bots.tsv")
    crawlers, libraries = (tuple(row[2] for row in rows if row[1] == kind) for kind in ("crawler", "library"))
    return crawlers, libraries


@cache
def datacentres() -> tuple[Network, ...]:
    """Return networks of hosting providers."""
    return tuple(ipaddress.ip_network(row[0]) for row in catalog_rows("datacentres.tsv"))


def layouts() -> Array:
    """Return the producers' orders of fields, flat: the contract's own first, then shuffled ones."""
    fields = range(len(FIELD_NAMES))
    orders = [list(fields)]
    orders.extend(
        sorted(fields, key=lambda field, layout=layout: mix64(layout << 32 | field))  # type: ignore[misc]
        for layout in range(1, LAYOUTS)
    )
    return np.array(orders, np.uint8).ravel()


class Lookup:
    """A model as the kernels read it. `tables` and `texts` hold addresses into arrays that this object keeps.

    `arrivals` is the cumulative weight at each step_ms of the run, `slot_weight` the weight of one slot.
    """

    __slots__ = ("_kept", "arrivals", "slot_weight", "tables", "texts")

    def __init__(self, model: TrafficModel, *, malformed_recipes: int, odd_recipes: int) -> None:
        self._kept: list[Array] = []
        self.arrivals, self.slot_weight = _arrivals(model)
        self.texts = self._make_texts(model)
        self.tables = Tables(
            key=np.uint64(mix64(model.seed)),
            partitions=model.partitions,
            start_ms=model.start_ms,
            currency_code=currency_code(model.currency),
            second_currency_code=currency_code(model.second_currency),
            layouts=LAYOUTS,
            skew_ms=model.clock_skew_ms_max,
            malformed_recipes=malformed_recipes,
            odd_recipes=odd_recipes,
            window_ms=model.dedupe_window_hours * HOUR_MS,
            allowed_lateness_ms=model.allowed_lateness_hours * HOUR_MS,
            margin_ms=model.edge_margin_minutes * MINUTE_MS,
            step_ms=step_ms(model),
            restart_ms=model.retry_restart_seconds_max * 1_000,
            conflict_ms=model.conflict_seconds_max * 1_000,
            **self._people(model),
            **self._offers(model),
            **self._ways(model),
            **_thresholds(model),
        )

    def _keep(self, array: Array) -> int:
        """Keep an array alive with this object; return its address."""
        self._kept.append(np.ascontiguousarray(array))
        return int(self._kept[-1].ctypes.data)

    def _keep_alias(self, weights: Sequence[int]) -> int:
        return self._keep(alias_table(np.array(weights, np.float64)))

    def _keep_zipf(self, n: int, exponent: float) -> int:
        return self._keep(alias_table(np.arange(1, n + 1, dtype=np.float64) ** -exponent))

    def _make_texts(self, model: TrafficModel) -> Texts:
        compact = [f'"{name}":'.encode() for name in FIELD_NAMES]
        return Texts(
            user_agents=self._keep(_text_table([agent.encode() for agent in all_user_agents()])),
            words=self._keep(_text_table([word.encode() for word in WORDS])),
            fields=self._keep(_text_table([*compact, *(token + b" " for token in compact)])),
            layouts=self._keep(layouts()),
            currencies=self._keep(
                _text_table([f'"{c}"'.encode() for c in (model.currency, model.second_currency)])
            ),
            literals=self._keep(_text_table(LITERALS)),
        )

    def _people(self, model: TrafficModel) -> dict[str, int]:
        sessions = _sessions(model, self.arrivals, self.slot_weight)
        agent_weights, desktops = user_agents()[1:]
        nets, homes = networks()
        net_weights = [weight for _, _, weight in nets]
        rows = [(*divmod(_as_ipv6(net), 2**64), _host_bits(net), _country(c, net)) for net, c, _ in nets]
        return {
            "session_ms": model.session_minutes * MINUTE_MS,
            "sessions": self._keep(sessions),
            "windows": len(sessions),
            "users": model.users,
            "q_users": self._keep(_power_law_users(model)),
            "a_publishers": self._keep_zipf(model.publishers, model.publisher_zipf_exponent),
            "publishers": model.publishers,
            "a_homes": self._keep_alias(net_weights[:homes]),
            "homes": homes,
            "a_carriers": self._keep_alias(net_weights[homes:]),
            "carriers": len(nets) - homes,
            "networks": self._keep(np.array(rows, np.uint64)),
            "a_desktops": self._keep_alias(agent_weights[:desktops]),
            "desktops": desktops,
            "a_phones": self._keep_alias(agent_weights[desktops:]),
            "phones": len(agent_weights) - desktops,
        }

    def _offers(self, model: TrafficModel) -> dict[str, int]:
        return {
            "a_campaigns": self._keep_zipf(model.campaigns, model.campaign_zipf_exponent),
            "campaigns": model.campaigns,
            "q_cpm": self._keep(_log_normal(1_200_000, 0.7)),
            "q_cpc": self._keep(_log_normal(250_000, 0.6)),
        }

    def _ways(self, model: TrafficModel) -> dict[str, int]:
        late_ms = model.late_minutes_median * MINUTE_MS
        weights = np.array(model.copy_weights)
        kinds = np.cumsum(weights) / max(weights.sum(), 1e-9)
        return {
            "q_transport": self._keep(_log_normal(model.transport_ms_median, model.transport_sigma)),
            "q_late": self._keep(_log_normal(late_ms, model.late_sigma)),
            "q_click": self._keep(
                _log_normal(model.click_delay_ms_median, model.click_delay_sigma, least=CLICK_DELAY_MS_MIN)
            ),
            "copy_kinds": self._keep(np.rint(kinds * 2**32).astype(np.int64)),
        }


def all_user_agents() -> tuple[str, ...]:
    """Return the strings that a row's `user_agent` indexes: desktops, phones, crawlers, libraries, and the empty one."""
    crawlers, libraries = bots()
    return (*user_agents()[0], *crawlers, *libraries, "")


def _thresholds(model: TrafficModel) -> dict[str, int]:
    shares = {
        "hot_user": model.hot_user_share,
        "mobile": model.mobile_share,
        "cookieless": model.cookieless_share,
        "hot_publisher": model.hot_publisher_share,
        "second_currency": model.second_currency_share,
        "long_ids": model.uuid_share,
        "spaced": model.spaced_json_share,
        "shuffled": model.shuffled_json_share,
        "skewed": model.skewed_clock_share,
        "crc32": model.crc32_share,
        "keyless": model.keyless_share,
        "click_reuses_id": model.click_reuses_id_share,
        "late": model.late_share,
        "expired": model.expired_share,
        "click": model.click_share,
        "cookie_appears": model.cookie_appears_share,
        "roaming": model.roaming_share,
        "copy": model.duplicate_share if sum(model.copy_weights) else 0.0,
        "malformed": model.malformed_share,
        "odd": model.odd_share,
    }
    return {f"{name}_t": round(share * 2**32) for name, share in shares.items()}


def _as_ipv6(net: Network) -> int:
    return int(net.network_address) | (0xFFFF << 32 if net.version == 4 else 0)


def _host_bits(net: Network) -> int:
    return net.max_prefixlen - net.prefixlen


def _country(code: str, net: Network) -> int:
    return ord(code[0]) | ord(code[1]) << 8 | (net.version == 6) << 16
