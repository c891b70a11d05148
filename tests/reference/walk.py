"""Tell the public interface of this library, or of the reference, as JSON: ``walk.py NAME``.

Classes with their members: parameters with kinds and defaults, return types, values of enums, and
the errors that docstrings name, with the built-in types that these are.
"""

import builtins
import enum
import inspect
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from side import library

# Of types as they are written: where they come from, and what else they may be called.
_PREFIX = re.compile(r"(?:[A-Za-z_][A-Za-z_0-9]*\.)+")
_OPTIONAL = re.compile(r"Optional\[(.+)\]")
_RAISES = re.compile(r"Raises\n(?:\s*-+\n)?(.*?)(?:\n\s*\n\s*[A-Z][a-z]+\n\s*-+\n|\Z)", re.DOTALL)
# Of pydantic's models, what callers use of them.
_MODELS = {
    *("model_dump", "model_dump_json", "model_validate", "model_validate_json", "model_copy"),
    *("model_json_schema", "model_fields", "model_fields_set", "model_construct"),
    *("copy", "dict", "json", "parse_obj", "parse_raw"),
}
_MEMBERS = {"__init__", "__enter__", "__exit__", "__eq__", "__hash__", "__str__"}


def returned(annotation):
    """Return a type as text, without where it comes from."""
    if annotation is inspect.Signature.empty:
        return None
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = _PREFIX.sub("", text.replace("'", ""))
    match = _OPTIONAL.fullmatch(text)
    if match:
        text = f"{match[1]} | None"
    return " | ".join(sorted(part.strip() for part in text.split(" | ")))


def parameters(function):
    """Return the parameters that callers may give: name, kind, default."""
    return [
        (item.name, item.kind.name, None if item.default is item.empty else repr(item.default))
        for item in inspect.signature(function).parameters.values()
        if not item.name.startswith("_")
    ]


def errors(text, module):
    """Return the errors that a docstring names, each as the built-in types that it is."""
    match = _RAISES.search(inspect.cleandoc(text or ""))
    if not match:
        return []
    names = [
        name.strip()
        for line in match[1].splitlines()
        if line and not line[0].isspace()
        for name in line.split(",")
    ]
    found = []
    for name in names:
        kind = getattr(module, name, None) or getattr(builtins, name)
        found.append(sorted(base.__name__ for base in kind.__mro__ if is_builtin(base)))
    return found


def is_builtin(kind):
    return kind.__module__ == "builtins" and kind not in (object, BaseException, Exception)


def member(owner, name, module):
    """Return what one member of a class is."""
    raw = inspect.getattr_static(owner, name)
    if isinstance(raw, property) or type(raw).__name__ == "cached_property":
        function = raw.fget if isinstance(raw, property) else raw.func
        returns = returned(inspect.signature(function).return_annotation)
        return {"is": "property", "returns": returns, "raises": errors(raw.__doc__, module)}
    function = getattr(owner, name)
    if not callable(function):
        return None
    documented = owner.__doc__ if name == "__init__" and not function.__doc__ else function.__doc__
    if name == "__init__" and not _RAISES.search(documented or ""):
        documented = owner.__doc__
    try:
        taken = parameters(owner if name == "__init__" else function)
        returns = returned(inspect.signature(function).return_annotation)
    except ValueError:  # made by C, with no signature
        taken, returns = None, None
    return {
        "is": "coroutine" if inspect.iscoroutinefunction(function) else "function",
        "parameters": taken,
        "returns": returns,
        "raises": errors(documented, module),
    }


def inherited(kind):
    """Names that come with a model of pydantic's, an enum, or any object."""
    bases = [base for base in kind.__mro__ if "nixl_connect" not in base.__module__]
    return {name for base in bases for name in vars(base)}


def walk(module):
    """Return every class with its public members."""
    found = {}
    for name, kind in vars(module).items():
        if name.startswith("_") or not inspect.isclass(kind) or issubclass(kind, Exception):
            continue
        if "nixl_connect" not in kind.__module__:
            continue
        if issubclass(kind, enum.Enum):
            found[name] = {
                "values": {item.name: [item.value, str(item)] for item in kind},
                "members": {},
            }
            continue
        from_elsewhere = inherited(kind) - {"__init__"}
        if "BaseModel" in {base.__name__ for base in kind.__mro__} or hasattr(kind, "model_dump"):
            from_elsewhere -= _MODELS
        names = [
            item
            for item in dir(kind)
            if (not item.startswith("_") or item in _MEMBERS) and item not in from_elsewhere
        ]
        members = {item: member(kind, item, module) for item in names}
        fields = getattr(kind, "model_fields", None) or getattr(kind, "__struct_fields__", ())
        found[name] = {
            "bases": [base.__name__ for base in kind.__mro__ if base is not kind],
            "members": {key: value for key, value in members.items() if value is not None},
            "fields": sorted(fields),
        }
    return found


if __name__ == "__main__":
    json.dump(walk(library(sys.argv[1])), sys.stdout)
