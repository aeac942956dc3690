"""Which names a request may give as `model`, and what role a name's suffix means."""

from __future__ import annotations

from encoder.space import Role
from serving.errors import UnknownModelError
from serving.roles import ROLE_SUFFIXES
from serving.settings import ServingSettings

__all__ = ["ServedModels"]

_LISTED_SUFFIXES = ("", "-query", "-document")


class ServedModels:
    """The names under which one model is served.

    Args:
        settings: Names and default role.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self._names = settings.model_names
        self.default_role = settings.default_role

    @property
    def all_names(self) -> list[str]:
        """Every name, with the suffixes that choose a role."""
        return [name + suffix for name in self._names for suffix in _LISTED_SUFFIXES]

    def find(self, model: str | None) -> tuple[str, Role | None]:
        """Return the name to give back, and the role that it names.

        Args:
            model: What a request says; None where it says nothing.

        Raises:
            UnknownModelError: It is not served here. (Answering anyway would give an application
                that asks for another model vectors of this one's space.)
        """
        if model is None:
            return self._names[0], None
        if model in self._names:
            return model, None
        for suffix, role in ROLE_SUFFIXES.items():
            if model.endswith(suffix) and model.removesuffix(suffix) in self._names:
                return model, role
        raise UnknownModelError(
            f"model: expected one of {', '.join(self.all_names)}, found {model!r}"
        )
