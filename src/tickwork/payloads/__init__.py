"""Arguments and results as JSON, typed by the function's hints.

A `Codec` belongs to one task. It binds the arguments as a call would, stores them by name, and gives them back as
they went in: `charge(7, day=date(2026, 5, 1))` travels as `{"order":7,"day":"2026-05-01"}`. Items of `*args` stand
under `"*"`, further keywords under `"**"`. Nothing is pickled; no name in a text is imported.

What the text looks like, by hint:

- None, bool, int, str and finite floats are JSON; other floats are `"nan"`, `"inf"`, `"-inf"`.
- Objects (dataclass, NamedTuple, TypedDict, pydantic, msgspec) are JSON objects; fields with `init=False` are left
  to the class, which computes them again. An enum is its value, or its name where a value is neither str nor int.
- Sets are sorted lists. A dict is an object; a key that does not travel as text stands there as its JSON text. Without
  hints for both, its keys are str.
- Bytes are base64; a datetime in a ZoneInfo keeps its zone, as in RFC 9557: `2026-05-01T09:00:00+09:00[Asia/Seoul]`;
  a timedelta is `P1DT2.500000S`.
- `X | None` looks like `X`. In other unions what JSON has itself (text, numbers) travels bare and the rest is
  wrapped: in `str | date` a date is `{"$":"date","v":"2026-05-01"}`. What is not wrapped is read by the first member
  that takes it, so that a member can be added at the end.
- A value marked `Annotated[..., Secret]` travels as it would without the mark.
- Without a hint, or with `Any`: plain JSON as it is, well-known types wrapped as in a union. So is a dict that holds
  the key "$" or keys that are not text.

Each hint is compiled once, at the first use, into a plan: a name, an encoder and a decoder (`plan.py`). Plans of
values are in `values.py`, of containers in `containers.py`, the way from a hint to its plan in `hints.py`.
"""

from .codec import Codec as Codec
from .errors_as_data import ErrorInfo as ErrorInfo
from .errors_as_data import describe_exception as describe_exception
from .errors_as_data import type_and_message as type_and_message
from .secrets import Secret as Secret

__all__ = ["Codec", "ErrorInfo", "Secret", "describe_exception", "type_and_message"]
