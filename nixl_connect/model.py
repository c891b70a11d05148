"""The part of pydantic's models that callers use, for the wire types, without pydantic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from nixl_connect.errors import ArgumentTypeError, LibraryError, MetadataError

# Rather than Self: editors that use jedi know only this as the class of what is returned.
_Self = TypeVar("_Self", bound="Model")

# Longer JSON may be of many things.
_LONG = 2048


class Foreign(ABC):
    """A field's value that msgspec does not know: it says itself what it is."""

    __slots__ = ()

    @abstractmethod
    def plain(self) -> list[Any]:
        """Return it in types that msgspec knows."""

    @abstractmethod
    def json(self) -> bytes:
        """Return its JSON."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The part of pydantic's interface that users of ``dynamo.nixl_connect`` call."""

    def model_dump(
        self,
        *,
        mode: str = "python",  # noqa: ARG002, callers give it
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the fields as plain dicts, lists, strings and integers.

        Parameters
        ----------
        mode
            Accepted for compatibility with pydantic; has no effect.
        include, exclude : set of str, optional
            Names of the fields to include, and of those to leave out.
        **options
            Options of pydantic that have no effect here: `by_alias`, `context`, `exclude_none`,
            `round_trip`, `serialize_as_any`, `warnings`.
        """
        if options:
            _check_options(options, _DUMP_OPTIONS)
        fields: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_plain)
        if include is not None or exclude is not None:
            names = _names(include, self.__struct_fields__) - _names(exclude, ())
            fields = {name: value for name, value in fields.items() if name in names}
        return fields

    def model_dump_json(
        self,
        *,
        indent: int | None = None,
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        **options: Any,
    ) -> str:
        """Return the JSON form.

        Parameters
        ----------
        indent : int, optional
            Spaces per level; a single line by default.
        include, exclude, **options
            As for `model_dump`.
        """
        if options:
            _check_options(options, _DUMP_OPTIONS)
        if include is None and exclude is None:
            text = _encoder.encode(self)
        else:
            text = msgspec.json.encode(self.model_dump(include=include, exclude=exclude))
        return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()

    def model_copy(  # noqa: PYI019
        self: _Self,
        *,
        update: Mapping[str, Any] | None = None,
        deep: bool = False,  # noqa: ARG002
    ) -> _Self:
        """Return an instance with some fields changed. Unlike pydantic, validates the changes.

        Parameters
        ----------
        update : mapping, optional
            The fields to change.
        deep : bool
            Accepted for compatibility with pydantic; has no effect, since instances are immutable.
        """
        return msgspec.structs.replace(self, **(update or {}))

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema, as pydantic generates it.

        Raises
        ------
        LibraryError
            pydantic is not installed. Also an ImportError.
        """
        try:
            from pydantic import TypeAdapter
        except ImportError:
            raise LibraryError("model_json_schema takes pydantic: pip install pydantic") from None
        return TypeAdapter(cls).json_schema()

    @classmethod
    def model_validate(  # noqa: PYI019
        cls: type[_Self], obj: object, **options: Any
    ) -> _Self:
        """Create an instance from a mapping of the fields, or return an instance unchanged.

        Parameters
        ----------
        obj : mapping
            The fields. Validation is always strict: a string is not a number.
        **options
            Options of pydantic that have no effect here: `strict`, `context`, `by_alias`,
            `by_name`, `from_attributes`.

        Raises
        ------
        MetadataError
            A field is missing, unknown, of the wrong type or out of range.
        """
        if options:
            _check_options(options, _VALIDATE_OPTIONS)
        if isinstance(obj, cls):
            return obj
        try:
            many = cls._of_plain(obj)
            return msgspec.convert(obj, cls) if many is None else many
        except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
            raise MetadataError(f"{cls.__name__}: {error}") from None

    @classmethod
    def model_validate_json(  # noqa: PYI019
        cls: type[_Self], json_data: str | bytes | bytearray, **options: Any
    ) -> _Self:
        """Create an instance from its JSON form.

        Parameters
        ----------
        json_data : str or bytes
            The JSON form.
        **options
            As for `model_validate`.

        Raises
        ------
        MetadataError
            The data is not JSON; otherwise as for `model_validate`.
        """
        if options:
            _check_options(options, _VALIDATE_OPTIONS)
        try:
            if len(json_data) > _LONG:
                many = cls._of_many(json_data)
                if many is not None:
                    return many
            return msgspec.json.decode(json_data, type=cls)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MetadataError(f"{cls.__name__}: {error}") from None
        except TypeError:
            raise ArgumentTypeError(
                f"json_data must be str or bytes, not {type(json_data).__name__}"
            ) from None

    @classmethod
    def _of_many(  # noqa: PYI019
        cls: type[_Self],
        text: str | bytes | bytearray,  # noqa: ARG003, for subclasses
    ) -> _Self | None:
        """Return an instance of the JSON of many things, if that can be had faster."""
        return None

    @classmethod
    def _of_plain(  # noqa: PYI019
        cls: type[_Self],
        obj: object,  # noqa: ARG003, for subclasses
    ) -> _Self | None:
        """Return an instance of a mapping with many things, if that can be had faster."""
        return None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let pydantic use the class as a field's type. Called only by pydantic."""
        from pydantic_core import core_schema

        mapping = cls._pydantic_mapping(core_schema)
        build = core_schema.no_info_after_validator_function(cls.model_validate, mapping)
        return core_schema.json_or_python_schema(
            json_schema=build,
            python_schema=core_schema.union_schema(
                [core_schema.is_instance_schema(cls), build], mode="left_to_right"
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.model_dump, return_schema=mapping
            ),
        )

    @classmethod
    def _pydantic_mapping(cls, core_schema: Any) -> Any:
        """Return the schema of a mapping of the fields."""
        fields = {
            name: core_schema.typed_dict_field(schema, required=False)
            for name, schema in cls._pydantic_fields(core_schema).items()
        }
        # For the JSON schema, pydantic 2.10 has to be told in its own words.
        updates = {"pydantic_js_updates": {"additionalProperties": False}}
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid", metadata=updates)

    @classmethod
    def _pydantic_fields(cls, core_schema: Any) -> dict[str, Any]:
        """Return the schema of each field."""
        raise NotImplementedError


_DUMP_OPTIONS = frozenset(
    {"by_alias", "context", "exclude_none", "round_trip", "serialize_as_any", "warnings"}
)
_VALIDATE_OPTIONS = frozenset({"strict", "context", "by_alias", "by_name", "from_attributes"})


def _check_options(given: dict[str, Any], harmless: frozenset[str]) -> None:
    """Raise ArgumentTypeError where an option of pydantic's would change something."""
    for name in given:
        if name not in harmless:
            raise ArgumentTypeError(f"there is no option {name}, but {', '.join(sorted(harmless))}")


def _names(given: Collection[str] | None, default: Sequence[str]) -> set[str]:
    """Return names of fields, given as a set or another collection of them."""
    if given is None:
        return set(default)
    if isinstance(given, (str, Mapping)):
        raise ArgumentTypeError("include and exclude must be sets of names")
    return set(given)


def _plain(value: object) -> list[Any]:
    if isinstance(value, Foreign):
        return value.plain()
    raise NotImplementedError(f"no plain form of {type(value).__name__}")


def _json(value: object) -> msgspec.Raw:
    if isinstance(value, Foreign):
        return msgspec.Raw(value.json())
    raise NotImplementedError(f"no JSON of {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_json)
