"""Objects as data, and data as objects: what `pipeline.yaml` is made of.

An object is written as a mapping of its fields plus `type_info`, which names its class. Reading is safe by
construction: a name in `type_info` is only ever resolved to a subclass of `SerializableModel` that is part of this
package, already imported by the caller's own code, or in a module that the caller named as trusted.
"""

import enum
import importlib
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, Final, TypedDict, TypeGuard

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import Self

from distilabel_dagster.base.yaml_data import DEEPEST
from distilabel_dagster.errors import (
    DistilabelDagsterError,
    PipelineDefinitionError,
    PipelineFileError,
    SerializationError,
    UntrustedClassError,
    suggest,
)

PACKAGE = __name__.partition(".")[0]
TYPE_INFO = "type_info"
_OWN_MODULES: Final = (f"{PACKAGE}.steps", f"{PACKAGE}.models", f"{PACKAGE}.dag.routing")
"""What of this package a file may have imported: where steps, models and routing functions are."""
_CONTEXT_FIELD: Final = "pipeline"
_LONGEST_NAME: Final = 300
# What a class raises whose fields are given values of types that nobody thought of.
_UNFIT: Final = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    SyntaxError,
)

_SECRET_NAME = re.compile(
    r"(^|.*_)((api|access|secret|private)_?keys?|token|passwords?|passwd|passphrase|secrets?|credentials?|authorization)$"
)
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What a tokenizer calls a token changes the output, and opens no door.
_TOKEN_OF_TEXT = re.compile(
    r"(^|.*_)(bos|eos|eot|eom|pad|unk|sep|cls|mask|stop|start|end|first|last|next|prefix|suffix|special|image)_token$"
)
# These hold names of columns: what a column is called is no secret.
COLUMN_FIELDS = frozenset({"input_mappings", "output_mappings"})


class TypeInfo(TypedDict):
    """Which class a mapping was written from."""

    module: str
    name: str


def is_secret_name(name: str) -> bool:
    """Tell whether a field or key of this name holds a secret: `api_key`, `hf_token`, `X-Api-Key`, `password`."""
    name = _WORD_BOUNDARY.sub("_", name).lower().replace("-", "_")
    return bool(_SECRET_NAME.match(name)) and not _TOKEN_OF_TEXT.match(name)


def is_secret(name: str, value: Any) -> bool:
    """Tell whether a value holds a secret: by its type, or as text (or a list of texts) under such a name."""
    if isinstance(value, SecretStr | SecretBytes):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(is_secret(name, item) for item in value)
    return is_secret_name(name) and isinstance(value, str)


def module_name(obj: Any) -> str:
    """The module of a class or function under the name that an import would use.

    A script that is run gets the name it would have when imported, so that the same file gives the same signature
    whether it's run or imported.
    """
    module = str(obj.__module__)
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "__mp_main__"):
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


def type_info_of(cls: type) -> TypeInfo:
    """Give the `type_info` mapping that names `cls`."""
    return {"module": module_name(cls), "name": cls.__qualname__}


def _find_module(module: str) -> Any | None:
    found = sys.modules.get(module)
    if found is not None:
        return found
    main = sys.modules.get("__main__")
    main_spec = getattr(main, "__spec__", None)
    main_names = {Path(getattr(main, "__file__", None) or "__main__").stem, getattr(main_spec, "name", None)}
    return main if module in main_names else None


def is_trusted(module: str, trusted_modules: Iterable[str]) -> bool:
    """Tell whether a module is one of those, or inside one: `"pkg"` covers `"pkg.sub"`, and not `"pkgs"`."""
    roots = (trusted_modules,) if isinstance(trusted_modules, str) else trusted_modules
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def _is_dotted_name(text: Any) -> TypeGuard[str]:
    return (
        isinstance(text, str)
        and len(text) <= _LONGEST_NAME
        and all(part.isidentifier() for part in text.split("."))
    )


def resolve_attribute(info: Any, source: str, trusted_modules: Iterable[str] = ()) -> Any:
    """Find what `type_info` names, importing nothing but this package's steps and models, and trusted modules.

    What is found stands at the top of the module, or in a class that does. No code runs but that of a module which
    is imported: attributes that a module makes when they're asked for aren't seen.

    Args:
        info: the mapping with `module` and `name`, as read.
        source: the file it was read from, for error messages.
        trusted_modules: modules that may be imported; `"pkg"` covers `"pkg.sub"` too.

    Raises:
        PipelineFileError: the mapping isn't one, or the module has nothing of that name.
        UntrustedClassError: nobody vouched for the module.
    """
    if not isinstance(info, Mapping) or not all(_is_dotted_name(info.get(key)) for key in ("module", "name")):
        raise PipelineFileError(
            f"{source}: expected a `type_info` with the names `module` and `name`, found a "
            f"{type(info).__name__} without them. The file is damaged or was not written by this package.",
            source=source,
        )
    module, name = info["module"], info["name"]
    if is_trusted(module, (*_OWN_MODULES, *_as_tuple(trusted_modules))):
        try:
            found: Any = importlib.import_module(module)
        except ImportError as error:
            raise PipelineFileError(
                f"{source} names `{module}.{name}`, but the module `{module}` can't be imported: {error}.",
                source=source,
            ) from error
    else:
        found = _find_module(module)
        if found is None and is_trusted(module, [PACKAGE]):
            raise PipelineFileError(
                f"{source} names `{module}.{name}`, but steps and models can't be imported from `{module}`: this "
                f"package has them in {' and '.join(f'`{each}`' for each in _OWN_MODULES[:2])}.",
                source=source,
            )
        if found is None:
            raise UntrustedClassError(source, module, name)
    return _walk_to(found, info, source)


def _as_tuple(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _walk_to(found: Any, info: Mapping[str, str], source: str) -> Any:
    """Go from a module to what it holds under a name, through classes alone."""
    module, name = info["module"], info["name"]
    for index, part in enumerate(name.split(".")):
        if not isinstance(found, type if index else ModuleType):
            raise UntrustedClassError(source, module, name)
        found = vars(found).get(part)
        if found is None:
            raise PipelineFileError(
                f"{source} names `{module}.{name}`, but `{module}` has no `{name}` that can be reached from outside "
                "a function. Move the class to the top of its module, or install the version that the file was "
                "written with.",
                source=source,
            )
    return found


def load_object(
    data: Any, source: str, trusted_modules: Iterable[str] = (), *, depth: int = 0
) -> "SerializableModel":
    """Make the object that `data` was dumped from.

    Args:
        data: what stands in the file for the object.
        source: the file it was read from, for error messages.
        trusted_modules: modules that may be imported; `"pkg"` covers `"pkg.sub"` too.
        depth: how many lists and mappings of the file it stands in.

    Raises:
        PipelineFileError: fields are missing, unknown or of the wrong type.
        UntrustedClassError: a class that nobody vouched for is named.
    """
    if not isinstance(data, Mapping):
        raise PipelineFileError(f"{source}: expected a mapping, found {type(data).__name__}.", source=source)
    trusted_modules = _as_tuple(trusted_modules)
    cls = resolve_attribute(data.get(TYPE_INFO), source, trusted_modules)
    info = data[TYPE_INFO]
    if not (isinstance(cls, type) and issubclass(cls, SerializableModel)):
        raise UntrustedClassError(source, info["module"], info["name"])
    _check_keys(cls, data, source)
    fields = {
        key: _load_value(value, source, trusted_modules, depth + 1)
        for key, value in data.items()
        if key not in (TYPE_INFO, "runtime_parameters_info")
    }
    try:
        return cls(**fields)
    except PipelineFileError:
        raise
    except DistilabelDagsterError as error:
        raise PipelineFileError(f"{source}: {error}", source=source) from error
    except _UNFIT as error:
        raise PipelineFileError(
            f"{source}: no `{info['name']}` can be made of what stands there ({type(error).__name__}).",
            source=source,
        ) from error


def _check_keys(cls: type["SerializableModel"], data: Mapping[Any, Any], source: str) -> None:
    odd = [key for key in data if not isinstance(key, str) or key == "self"]
    if odd:
        raise PipelineFileError(
            f"{source}: a `{cls.__name__}` has the key {reprlib.repr(odd[0])}, which is no field's name.",
            source=source,
        )
    context = cls.model_fields.get(_CONTEXT_FIELD)
    if _CONTEXT_FIELD in data and context is not None and context.exclude:
        raise PipelineFileError(
            f"{source}: a `{cls.__name__}` has a `{_CONTEXT_FIELD}`, which the one that reads the file gives it.",
            source=source,
        )


def _load_value(value: Any, source: str, trusted_modules: tuple[str, ...], depth: int) -> Any:
    if depth > DEEPEST:
        raise PipelineFileError(
            f"{source}: it's nested too deeply, in more than {DEEPEST} levels.", source=source
        )
    if isinstance(value, Mapping):
        if TYPE_INFO in value:
            return load_object(value, source, trusted_modules, depth=depth)
        return {key: _load_value(item, source, trusted_modules, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_load_value(item, source, trusted_modules, depth + 1) for item in value]
    return value


def dump_value(value: Any, where: str) -> Any:
    """Turn a field's value into mappings, lists and scalars; secrets are left out.

    Raises:
        SerializationError: the value isn't data; `where` is named in the message.
    """
    if isinstance(value, SerializableModel):
        return value.dump()
    if isinstance(value, Mapping):
        return {
            str(key): dump_value(item, f"{where}.{key}")
            for key, item in value.items()
            if not is_secret(str(key), item)
        }
    if isinstance(value, list | tuple):
        return [dump_value(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted(dump_value(item, where) for item in value)
    plain = _as_plain(value)
    if plain is not value:
        return dump_value(plain, where)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SerializationError(
        f"`{where}` is a {type(value).__name__}, which can't be written to pipeline.yaml. Use strings, numbers, "
        "lists, dicts, or a subclass of SerializableModel.",
        where=where,
    )


def _as_plain(value: Any) -> Any:
    """Give what stands for a value that isn't plain data itself; the value where nothing does."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    return value.tolist() if hasattr(value, "tolist") else value


def _describe_problem(problem: Any, cls: type[BaseModel]) -> str:
    """Say in which field what is wrong, without the value: it may be large, or secret."""
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"it has no field `{path}`.{suggest(path, cls.model_fields)}"
    told = str(problem["msg"]).removeprefix("Value error, ").removesuffix(".")
    return f"`{path}`: {told}" if path else told


class SerializableModel(BaseModel):
    """Base of what can be part of a pipeline file: steps, models.

    Unknown fields are refused, assignments are validated, and `dump` never holds a secret.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        validate_default=True,
        validate_assignment=True,
        extra="forbid",
        # Values may be secret, and a traceback shows pydantic's errors too.
        hide_input_in_errors=True,
    )

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            problems = "; ".join(_describe_problem(each, type(self)) for each in error.errors())
            named = f" `{data['name']}`" if isinstance(data.get("name"), str) else ""
            message = f"`{type(self).__name__}`{named} can't be made: {problems}."
        else:
            return
        # Outside the handler, since pydantic's error shows the values, which may be secret.
        raise PipelineDefinitionError(message)

    def dump(self) -> dict[str, Any]:
        """Give the fields as plain data with `type_info`, without secrets and excluded fields."""
        dumped = {
            name: dict(getattr(self, name))
            if name in COLUMN_FIELDS
            else dump_value(getattr(self, name), f"{type(self).__name__}.{name}")
            for name, info in type(self).model_fields.items()
            if is_dumped(name, info, getattr(self, name))
        }
        return {**dumped, TYPE_INFO: type_info_of(type(self))}

    @classmethod
    def from_dict(cls, data: dict[str, Any], *, trusted_modules: Iterable[str] = ()) -> Self:
        """Make the object that `dump` gave `data` of.

        Raises:
            PipelineFileError: `data` isn't of this class, or a field is wrong.
        """
        loaded = load_object(data, "the given dict", trusted_modules)
        if not isinstance(loaded, cls):
            raise PipelineFileError(
                f"the given dict holds a `{type(loaded).__name__}`, expected a `{cls.__name__}`.",
                source="the given dict",
            )
        return loaded


def is_dumped(name: str, info: FieldInfo, value: Any) -> bool:
    """Tell whether a field is written: not excluded, and no secret by type or name."""
    if info.exclude or "SecretStr" in str(info.annotation) or "SecretBytes" in str(info.annotation):
        return False
    return not (is_secret(name, value) or (value is None and is_secret_name(name)))
