"""A robot that walks while people watch, break and command it: a session, its clock, and the page that shows it."""

from koboshi.live.moment import Moment, Note
from koboshi.live.session import Driver, Session

__all__ = ["Driver", "Moment", "Note", "Session"]
