"""Every error a user can meet, as one tree.

DisagctlError                    what — why — what to run next; a stable code and an exit code
├── UsageError          2        the command line is off, or a confirmation is needed and nobody is there to give it
├── SpecError           3        service.yaml is invalid; carries file and line
├── InfeasibleError     4        no plan, no capacity, too little memory or disk
├── OverBudgetError     5
├── CredentialsError    6
├── TeardownError       7        something may still run or bill
├── WaitTimeout         8
├── UnhealthyError      9        the service cannot serve
├── RequestFailed       100      one generation failed
├── RequestCancelled    103
└── UnexpectedError     1        none of the above
"""

from typing import ClassVar


class DisagctlError(Exception):
    """Base. ``str()`` gives ``error[CODE]: what — why — next``, leaving out what is empty."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "unexpected"

    def __init__(self, what: str, *, why: str = "", next: str = "", code: str | None = None) -> None:  # noqa: A002
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next
        self.error_code = code or self.code

    def __str__(self) -> str:
        return f"error[{self.error_code}]: " + " — ".join(part for part in (self.what, self.why, self.next) if part)


class UnexpectedError(DisagctlError):
    """Something that should not happen did."""


class UsageError(DisagctlError):
    """The command cannot be carried out as asked."""

    exit_code = 2
    code = "usage"


class SpecError(DisagctlError):
    """service.yaml is invalid. ``what`` begins with file:line."""

    exit_code = 3
    code = "spec_invalid"


class InfeasibleError(DisagctlError):
    """No plan satisfies the spec, or there is no capacity for it."""

    exit_code = 4
    code = "infeasible"


class OverBudgetError(DisagctlError):
    """It would cost more than allowed."""

    exit_code = 5
    code = "over_budget"


class CredentialsError(DisagctlError):
    """A cloud refuses us: no credentials, no quota."""

    exit_code = 6
    code = "credentials"


class TeardownError(DisagctlError):
    """Not everything is gone; the message names the survivors."""

    exit_code = 7
    code = "teardown_incomplete"


class WaitTimeout(DisagctlError):
    """It did not happen in time; it may still."""

    exit_code = 8
    code = "wait_timeout"


class UnhealthyError(DisagctlError):
    """The service cannot serve."""

    exit_code = 9
    code = "unhealthy"


class RequestFailed(DisagctlError):
    """One generation failed for good."""

    exit_code = 100
    code = "request_failed"


class RequestCancelled(DisagctlError):
    """One generation was cancelled."""

    exit_code = 103
    code = "request_cancelled"
