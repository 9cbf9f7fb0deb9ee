"""The configuration: one file, read once, refused with the line at fault."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.json_schema import SkipJsonSchema
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from meshfed.catalog.document import Document, Unreadable, documents, dotted
from meshfed.catalog.document import Path as Keys
from meshfed.catalog.model import Rejected
from meshfed.federation import rules
from meshfed.federation.fields import (
    Address,
    AsWritten,
    CatalogUrl,
    Database,
)
from meshfed.federation.findings import Finding, findings, nearest, unknown
from meshfed.federation.inject.injection import Injection
from meshfed.federation.join.joining import LISTED, Join
from meshfed.federation.rules import Federation
from meshfed.federation.sections import (
    Admin,
    Certificates,
    FilesEntry,
    Health,
    History,
    KubernetesEntry,
    Mesh,
    ProviderEntry,
    SpecificationEntry,
    Xds,
)

if TYPE_CHECKING:
    pass

PREFIX = "MESHFED_"
KEY = "MESHFED_KEY"  # the sealing key itself, which stands in no file
FOUND = (Path("meshfed.yaml"), Path("/etc/meshfed/meshfed.yaml"))
REGISTERED = "registered"  # the provider of what people register by hand
NO_FILE = Document("no file", {}, {})


class Refused(Exception):
    """A configuration with mistakes in it."""

    def __init__(self, *rejected: Rejected) -> None:
        super().__init__("\n".join(map(str, rejected)))
        self.rejected = rejected


class Settings(BaseSettings):
    """The configuration of meshfed."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    mesh: Mesh = Field(default_factory=Mesh)
    catalog: Database = Field(
        default=CatalogUrl("sqlite:///meshfed.db"),
        description="where the state of the mesh is kept",
    )
    providers: tuple[ProviderEntry, ...] = Field(default=(), description="the platforms to observe")
    specification: tuple[SpecificationEntry, ...] = Field(
        default=(), description="who may call whom"
    )
    federation: Federation = Field(default_factory=Federation)
    history: History = Field(default_factory=History)
    certificates: Certificates = Field(default_factory=Certificates)
    xds: Xds = Field(default_factory=Xds)
    join: Join = Field(default_factory=Join)
    admin: Admin = Field(default_factory=Admin)
    health: Health = Field(default_factory=Health)
    injection: Injection = Field(default_factory=Injection)
    # What is known of the file itself, and no key in it.
    base: SkipJsonSchema[Path] = Field(default=Path(), exclude=True)  # where relative paths start
    file: SkipJsonSchema[Path | None] = Field(default=None, exclude=True)  # what was read, if any

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # the environment is passed to `read`, not found by itself

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str]) -> Self:
        """The file, or the first of FOUND, or none; over it the environment. Raises Refused."""
        path = path or standing()
        if path is None:
            return cls.of(NO_FILE, Path.cwd(), environ)
        settings = cls.of(_document(path), path.absolute().parent, environ)
        return settings.model_copy(update={"file": path})

    @classmethod
    def of(cls, written: Document, base: Path, environ: Mapping[str, str]) -> Self:
        """What a document says, with the environment over it. Raises Refused."""
        variables = {name.upper(): text for name, text in environ.items() if text}
        rejected = [*_not_json(variables), *_stray(variables)]
        if rejected:
            raise Refused(*rejected)
        data = over(_keyed(written), _environment(variables))
        mistakes = list(_unknown(data))
        known = {name: value for name, value in data.items() if name in known_keys()}
        try:
            settings = cls.model_validate(known)
            mistakes += _clashes(settings)
        except ValidationError as error:
            mistakes += findings(error, cls)
        if mistakes:
            mistakes.sort(key=lambda mistake: written.line(mistake[0]))
            raise Refused(*(_rejected(written, variables, *each) for each in mistakes))
        return settings._settled(base, variables.get(KEY, ""))

    def reject(self, path: Keys, why: str) -> Rejected:
        """A mistake that only whoever uses a value could find, where it stands in the file."""
        written = _document(self.file) if self.file else NO_FILE
        return written.reject(path, why)

    def _settled(self, base: Path, key: str) -> Self:
        certificates = {"key_file": base / self.certificates.key_file, "key": SecretStr(key)}
        settled = {
            "base": base,
            "catalog": self.catalog.under(base),
            "certificates": self.certificates.model_copy(update=certificates),
        }
        return self.model_copy(update=settled)


def standing() -> Path | None:
    """The configuration that is read when none is named."""
    return next((each for each in FOUND if each.is_file()), None)


def schema() -> str:
    """The JSON Schema of the file, as shipped in settings.schema.json."""
    made = Settings.model_json_schema(schema_generator=AsWritten)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def _clashes(settings: Settings) -> Iterator[Finding]:
    names = [entry.name for entry in settings.providers]
    for n, name in enumerate(names):
        if name in names[:n]:
            yield ("providers", n, "name"), f"{name!r} is another provider's already"
        if name == REGISTERED:
            why = f"{name!r} is what `meshfed register` makes known: choose another"
            yield ("providers", n, "name"), why
    sources = [entry.source for entry in settings.specification]
    for n, entry in enumerate(settings.specification):
        if entry.source in sources[:n]:
            key = "path" if isinstance(entry, FilesEntry) else "context"
            yield ("specification", n, key), "stands here twice"
        if isinstance(entry, KubernetesEntry):
            try:
                entry.reached(settings.base)
            except ValueError as error:
                key, _, why = str(error).partition(": ")
                yield ("specification", n, *key.split(".")), why
    lists = any(entry.type == "azure" for entry in settings.providers)
    for n, policy in enumerate(settings.join.policies):
        if not lists and (asked := next((key for key in LISTED if getattr(policy, key)), "")):
            why = "nobody says that of machines: name a provider of type azure, which lists them"
            yield ("join", "policies", n, asked), why
    yield from rules.clashes(settings.federation, names)
    yield from _crowded(settings)


def _crowded(settings: Settings) -> Iterator[Finding]:
    """One port, twice."""
    listeners: tuple[tuple[Keys, Address | None], ...] = (
        (("xds", "listen"), settings.xds.listen),
        (("admin", "listen"), settings.admin.listen),
        (("join", "listen"), settings.join.listen),
        (("health", "listen"), settings.health.listen),
        (("xds", "tokens"), settings.xds.tokens),
        (("injection", "listen"), settings.injection.listen),
    )
    for n, (path, listen) in enumerate(listeners):
        for other, taken in listeners[:n]:
            if listen is not None and taken is not None and listen.overlaps(taken):
                yield path, f"{listen} is taken by {dotted(other)}"


def known_keys() -> list[str]:
    return [name for name, field in Settings.model_fields.items() if not field.exclude]


def _unknown(data: Mapping[str, object]) -> Iterator[Finding]:
    for name in data:
        if name not in known_keys():
            yield (name,), unknown(name, known_keys())
    certificates = data.get("certificates")
    if isinstance(certificates, dict) and "key" in certificates:
        yield (
            ("certificates", "key"),
            f"does not belong in this file: set {KEY}, or name a key_file",
        )


def _keyed(written: Document) -> dict[str, object]:
    """The file as a mapping. Raises Refused."""
    if not isinstance(written.data, dict):
        raise Refused(written.reject((), "must be a mapping, `key: value`"))
    return {str(key): value for key, value in written.data.items()}


def over(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Both, key by key; where both have a value, the one above."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        both = isinstance(under, dict) and isinstance(value, dict)
        merged[name] = over(under, value) if both else value  # type: ignore[arg-type]  # `both`
    return merged


def _environment(variables: Mapping[str, str]) -> dict[str, object]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): text for name, text in variables.items()}
    return _switched(source(), Settings)


def _switched(said: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """A variable has only text: where true or false is wanted, it is what it says."""
    made = dict(said)
    for name, value in said.items():
        kind = model.model_fields[name].annotation if name in model.model_fields else None
        if isinstance(value, str) and kind is bool:
            with suppress(ValidationError):
                made[name] = TypeAdapter(bool).validate_python(value)
        elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            made[name] = _switched(value, kind)
    return made


def _not_json(variables: Mapping[str, str]) -> Iterator[Rejected]:
    """A variable that stands for more than one value is written as JSON."""
    for name in known_keys():
        text = variables.get(PREFIX + name.upper(), "")
        if text and name != "catalog":
            try:
                json.loads(text)
            except ValueError:
                yield Rejected(PREFIX + name.upper(), name, "must be JSON")


def _stray(variables: Mapping[str, str]) -> Iterator[Rejected]:
    """Misspelt variables. Kubernetes makes MESHFED_PORT and others, which are left alone."""
    for variable in variables:
        if not variable.startswith(PREFIX) or variable == KEY:
            continue
        name, nested, _ = variable.removeprefix(PREFIX).lower().partition("__")
        if name not in known_keys() and (nested or nearest(name, known_keys(), cutoff=0.8)):
            yield Rejected(variable, name, unknown(name, known_keys()))


def _rejected(written: Document, variables: Mapping[str, str], path: Keys, why: str) -> Rejected:
    """Where it was said: in a variable, or in the file."""
    for length in range(len(path), 0, -1):
        variable = PREFIX + "__".join(map(str, path[:length])).upper()
        if variable in variables:
            return Rejected(variable, dotted(path), why)
    return written.reject(path, why)


def _document(path: Path) -> Document:
    """The one document of a file. Raises Refused."""
    if path.exists() and not path.is_file() and not path.is_dir():  # it would never end
        raise Refused(Rejected(str(path), "", "not a file"))
    try:
        return only(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise Refused(Rejected(str(path), "", f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise Refused(Rejected(str(path), "", "not UTF-8 text")) from error


def only(text: str, file: str) -> Document:
    """The one document of a text; an empty text says nothing. Raises Refused."""
    try:
        found = list(documents(text, file))
    except Unreadable as unreadable:
        raise Refused(unreadable.rejected) from unreadable
    if len(found) > 1:
        raise Refused(found[1].reject((), "a second document: a configuration is one"))
    return found[0] if found else Document(file, {}, {})
