"""The ledger, summed: records and money of each class, and the object that `--json` prints."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.schemas.wire import currency_text
from adledger.sinks.sink import LedgerEntry

_Key = TypeVar("_Key")

ClassMoney = tuple[int, int]
"""Class code and currency code."""

WITHOUT_MONEY = (Class.MALFORMED, Class.LOST)
"""Classes whose records could not be read, so their worth is unknown."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over ledger entries, exact: `records` by class code, and those and `nanos` by class and currency code."""

    records_received: int
    records: Mapping[int, int]
    records_by_currency: Mapping[ClassMoney, int]
    nanos_by_currency: Mapping[ClassMoney, int]

    @classmethod
    def of(cls, entries: Iterable[LedgerEntry]) -> "Totals":
        """Return the sums over the entries."""
        received = 0
        records: Counter[int] = Counter()
        worth_of: Counter[ClassMoney] = Counter()
        nanos: Counter[ClassMoney] = Counter()
        for entry in entries:
            received += entry.records_received
            records.update(entry.counts)
            for m in entry.money:
                worth_of[m.class_code, m.currency_code] += m.records
                nanos[m.class_code, m.currency_code] += m.money_nanos
        return cls(received, records, worth_of, nanos)

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.records_received + other.records_received,
            _added(self.records, other.records),
            _added(self.records_by_currency, other.records_by_currency),
            _added(self.nanos_by_currency, other.nanos_by_currency),
        )

    @property
    def conserved(self) -> bool:
        """Whether the records received are the sum of the classes (`lost` is not among them)."""
        return self.records_received == sum(n for code, n in self.records.items() if code != Class.LOST)


def class_summary(totals: Totals) -> dict[str, dict[str, Any]]:
    """Return class name -> records, `money_nanos`, and `money_by_currency` (nanos).

    `money_nanos` is null for malformed and lost, and if it would sum amounts of several currencies.
    """
    currencies = {currency for _, currency in totals.records_by_currency}
    return {
        CLASS_NAMES[code]: {
            "records": totals.records.get(code, 0),
            "money_nanos": _one_currency(totals, code)
            if code not in WITHOUT_MONEY and len(currencies) < 2
            else None,
            "money_by_currency": {
                currency_text(currency): nanos
                for (of_class, currency), nanos in sorted(totals.nanos_by_currency.items())
                if of_class == code
            },
        }
        for code in Class
    }


def class_rows(totals: Totals) -> list[tuple[str, int, str | None, str]]:
    """Return (class, records, money in the currency, currency) for display: a row for each class and currency."""
    rows: list[tuple[str, int, str | None, str]] = []
    for code in Class:
        worth = sorted((u, n) for (of_class, u), n in totals.records_by_currency.items() if of_class == code)
        for currency, records in worth:
            money = money_text(totals.nanos_by_currency.get((code, currency), 0))
            rows.append((CLASS_NAMES[code], records, money, currency_text(currency)))
        if not worth:
            rows.append((CLASS_NAMES[code], totals.records.get(code, 0), None, ""))
    return rows


def money_text(nanos: int) -> str:
    """Return nanos as an exact decimal of the currency, thousands set off: 1_234_500_000_000 is 1,234.500000000."""
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), 10**9)
    return f"{sign}{whole:,}.{rest:09}"


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """What `demo`, `run --until-caught-up` and `ledger check` report.

    `totals` are of the whole ledger, or of what was checked; events a second and CPU seconds are of this process
    and its workers, None where nothing was processed.
    """

    totals: Totals
    conserved: bool
    continuous: bool
    events_per_second: float | None = None
    cpu_seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "records_received": self.totals.records_received,
            "classes": class_summary(self.totals),
            "conserved": self.conserved,
            "continuous": self.continuous,
            "events_per_second": self.events_per_second,
            "cpu_seconds": self.cpu_seconds,
        }


def _one_currency(totals: Totals, code: int) -> int:
    return sum(nanos for (of_class, _), nanos in totals.nanos_by_currency.items() if of_class == code)


def _added(a: Mapping[_Key, int], b: Mapping[_Key, int]) -> dict[_Key, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}
