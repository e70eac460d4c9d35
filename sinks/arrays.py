"""Turns a column read from ClickHouse into the array that its type declares.

ClickHouse sends a column sparse where most of a part's values are the default, and clickhouse-driver returns such a
column as a Python list even where numpy was requested. Comparing a list with a number yields one boolean instead of an
array: `column == 1` is False, and indexing with it selects no row. So every column passes through here.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from adledger.pipeline.errors import SinkError

AnyArray = npt.NDArray[Any]

DTYPES: dict[str, str] = {
    **{f"{sign}Int{bits}": f"{kind}{bits // 8}" for sign, kind in (("U", "u"), ("", "i")) for bits in (8, 16, 32, 64)},
    "Float32": "f4",
    "Float64": "f8",
    "Bool": "?",
}  # fmt: skip
"""ClickHouse type -> dtype of its array. No strings: in numpy arrays the driver drops their trailing zero bytes."""


def column_array(values: Any, name: str, type_name: str) -> AnyArray:
    """Return a column's values as an array of the dtype that its type declares.

    Raises SinkError for a type that is not in DTYPES: a query that expects arrays must convert on the server.
    """
    dtype = DTYPES.get(type_name)
    if dtype is None:
        raise SinkError(
            f"column {name} is {type_name}, which is not read as an array",
            remedy="read it as rows, or convert it in the query: toInt64(...), toUnixTimestamp64Milli(...)",
        )
    return np.asarray(values, dtype)
