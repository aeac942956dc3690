"""Which names a request may give as `model`, and which role its fields ask for."""

from __future__ import annotations

from collections.abc import Mapping

from encoder.space import Role
from serving.errors import UnknownModelError
from serving.roles import ROLE_SUFFIXES, agreed_role, role_of
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

    def choose(self, model: str | None, words: Mapping[str, str | None]) -> tuple[str, Role]:
        """Return the name to give back, and the role on which name and fields agree.

        Args:
            model: What a request says; None where it says nothing.
            words: What its other fields say of the role, by the field's name.

        Raises:
            UnknownModelError: The model is not served here.
            InvalidInputError: A word names no role, or two fields name different ones.
        """
        name, suffix_role = self.find(model)
        said = {field: role_of(word, field) for field, word in words.items()}
        return name, agreed_role({"model": suffix_role, **said}, self.default_role)

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
