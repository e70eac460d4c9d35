"""ClickHouse's error answers: a code and a text."""

import re

_STATED = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.DOTALL)

BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
UNKNOWN_TYPE = 50
SYNTAX_ERROR = 62
UNKNOWN_SETTING = 115
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
QUERY_WAS_CANCELLED = 394
ACCESS_DENIED = 497
QUERY_WAS_CANCELLED_BY_CLIENT = 735
UNKNOWN_EXCEPTION = 1002


class ServerError(Exception):
    """An error for the client: ClickHouse's code, and the text without `Code: N. DB::Exception: `."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def stated(cls, text: str) -> "ServerError":
        """Return the error that the engine stated as text."""
        match = _STATED.search(text)
        return cls(int(match[1]), match[2].strip()) if match else cls(UNKNOWN_EXCEPTION, text.strip())

    def __str__(self) -> str:
        return f"Code: {self.code}. DB::Exception: {self.message}"
