"""Whether a request fits what an Envoy was told: its own matchers, read as it reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import re2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import string_pb2

NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, as it leaves the application. Header names are in lower case."""

    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=lambda: NONE)

    def header(self, name: str) -> str | None:
        match name:
            case ":method":
                return self.method
            case ":path":
                return self.path
            case _:
                return self.headers.get(name)

    @property
    def without_query(self) -> str:
        return self.path.partition("?")[0]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def permits(permission: rbac_pb2.Permission, request: Request) -> bool:
    match permission.WhichOneof("rule"):
        case "any":
            return permission.any
        case "header":
            return header_holds(permission.header, request)
        case "url_path":
            return text_holds(permission.url_path.path, request.without_query)
        case "not_rule":
            return not permits(permission.not_rule, request)
        case "and_rules":
            return all(permits(each, request) for each in permission.and_rules.rules)
        case "or_rules":
            return any(permits(each, request) for each in permission.or_rules.rules)
        case other:
            raise ValueError(f"a permission by {other} is none that meshfed writes")


def route_holds(match: route_components_pb2.RouteMatch, request: Request) -> bool:
    return _path_holds(match, request) and all(header_holds(h, request) for h in match.headers)


def _path_holds(match: route_components_pb2.RouteMatch, request: Request) -> bool:
    match match.WhichOneof("path_specifier"):
        case "prefix":
            return request.path.startswith(match.prefix)
        case "safe_regex":
            return _whole(match.safe_regex.regex, request.without_query)
        case other:
            raise ValueError(f"a route by {other} is none that meshfed writes")


def header_holds(matcher: route_components_pb2.HeaderMatcher, request: Request) -> bool:
    value = request.header(matcher.name)
    return value is not None and text_holds(matcher.string_match, value)


def text_holds(matcher: string_pb2.StringMatcher, text: str) -> bool:
    match matcher.WhichOneof("match_pattern"):
        case "exact":
            return text == matcher.exact
        case "safe_regex":
            return _whole(matcher.safe_regex.regex, text)
        case other:
            raise ValueError(f"a text by {other} is none that meshfed writes")


def _whole(expression: str, text: str) -> bool:
    return re2.fullmatch(expression, text) is not None
